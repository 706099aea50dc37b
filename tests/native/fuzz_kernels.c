/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: build each kernel with AddressSanitizer and UBSan, feed it frames that are half right
 * (plausible headers, random fields, random cuts) in memory of exactly their size, in bursts of
 * random length, both ways, with a clock that jumps. No sanitizer report, every verdict known,
 * every drop reason named, every packet still in its memory.
 *
 * Build: -DKERNEL_HEADER, -DKERNEL_NEW(state) and -DKERNEL_BURST name the kernel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include KERNEL_HEADER
#include <onvm/checksum.h>

#include "test.h"

#define NB_MAX 64u
#define NB_REASONS 16u

static uint64_t seed;

static uint32_t
rnd(uint32_t below)
{
	return test_random(&seed) % below;
}

static void
ipv4_fill(uint8_t *ip, uint32_t room)
{
	static const uint8_t protocols[] = {6, 6, 17, 17, 1, 1, 132, 47, 58};
	static const uint8_t types[] = {0, 8, 3, 11, 12, 5};
	static const uint8_t addresses[][4] = {
		{10, 0, 0, 1}, {10, 0, 0, 2}, {192, 0, 2, 1}, {198, 51, 100, 10}, {203, 0, 113, 1},
	};

	uint16_t sum;

	ip[0] = (uint8_t)(0x45 + (rnd(8) == 0 ? rnd(11) : 0));
	ip[2] = (uint8_t)(room >> 8);
	ip[3] = (uint8_t)room;
	ip[6] = ip[7] = 0;
	if (rnd(10) == 0)
		ip[7] = (uint8_t)rnd(3);
	ip[9] = protocols[rnd(sizeof(protocols))];
	memcpy(ip + 12, addresses[rnd(5)], 4);
	memcpy(ip + 16, addresses[rnd(5)], 4);
	if (room < 28)
		return;
	ip[20] = 0;
	ip[22] = 0;
	ip[21] = (uint8_t)rnd(4);
	ip[23] = (uint8_t)rnd(4);
	if (ip[9] == 1)
		ip[20] = types[rnd(sizeof(types))];
	if (ip[9] == 17) {
		ip[24] = (uint8_t)((room - 20) >> 8);
		ip[25] = (uint8_t)(room - 20);
	}
	if (ip[9] == 6 && room > 33) {
		ip[32] = 0x50;
		ip[33] = (uint8_t)rnd(32);
	}
	if (ip[9] != 1)
		return;
	if (room >= 56)
		ipv4_fill(ip + 28, room - 28);
	memset(ip + 22, 0, 2);
	sum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip + 20, room - 20));
	memcpy(ip + 22, &sum, 2);
}

static uint32_t
frame_fill(uint8_t *data)
{
	uint32_t length = rnd(160), offset = 14;

	for (uint32_t i = 0; i < length; i++)
		data[i] = (uint8_t)rnd(256);
	if (length < 40 || rnd(20) == 0)
		return length;
	data[12] = 8;
	data[13] = 0;
	if (rnd(8) == 0) {
		data[12] = 0x81;
		data[16] = 8;
		data[17] = 0;
		offset = 18;
	}
	ipv4_fill(data + offset, length - offset);
	if (rnd(4) == 0 && length > 60) {
		data[offset - 2] = 0x86;
		data[offset - 1] = 0xdd;
		data[offset] = 0x60;
		data[offset + 4] = 0;
		data[offset + 5] = (uint8_t)(length - offset - 40);
		data[offset + 6] = rnd(2) ? 17 : (uint8_t)rnd(70);
	}
	if (rnd(10) == 0)
		data[rnd(length)] = (uint8_t)rnd(256);
	return rnd(10) == 0 ? rnd(length) : length;
}

int
main(int argc, char **argv)
{
	const uint32_t rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 20000;
	uint64_t counters[ONVM_COUNTERS_MAX] = {0}, nb_verdicts[4] = {0};
	struct onvm_ctx ctx = {.now_ns = 1, .counters = counters};
	struct onvm_pkt pkts[NB_MAX];
	uint8_t scratch[256];

	seed = test_seed(88172645463325252ull);
	KERNEL_NEW(ctx.state);
	if (ctx.state == NULL)
		return 1;
	for (uint32_t round = 0; round < rounds; round++) {
		const uint32_t nb = rnd(NB_MAX + 1);
		uint8_t *memory[NB_MAX];

		for (uint32_t i = 0; i < nb; i++) {
			const uint32_t length = frame_fill(scratch);

			memory[i] = malloc(length + 1);
			memcpy(memory[i] + 1, scratch, length);
			pkts[i] = (struct onvm_pkt){
				.data = memory[i] + 1,
				.length = (uint16_t)length,
				.flags = rnd(2) ? ONVM_F_REVERSE : 0,
			};
		}
		ctx.now_ns += rnd(50) == 0 ? 100000000000ull : rnd(1000000);
		KERNEL_BURST(&ctx, pkts, nb);
		for (uint32_t i = 0; i < nb; i++) {
			if (pkts[i].verdict > ONVM_OUT || pkts[i].data != memory[i] + 1 ||
			    (pkts[i].verdict == ONVM_DROP && pkts[i].destination >= NB_REASONS))
				abort();
			nb_verdicts[pkts[i].verdict]++;
			free(memory[i]);
		}
	}
	printf("next %lu drop %lu out %lu, counters", nb_verdicts[0], nb_verdicts[1],
	       nb_verdicts[3]);
	for (uint32_t i = 0; i < ONVM_COUNTERS_MAX; i++)
		printf(" %lu", counters[i]);
	printf("\n");
	KERNEL_FREE(ctx.state);
	return 0;
}
