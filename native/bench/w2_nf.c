/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The benchmark NF: work "w2" as a C kernel, in a process of its own.
 *
 *	onvm-bench-nf SOCKET SERVICE NB_STAGES BURST_SIZE CPU
 *
 * w2: parse Ethernet, IPv4 and UDP, look the destination port up in a set, drop it if found,
 * else lower the TTL and correct the checksum. Everything that is no such packet is dropped.
 */

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include <onvm/checksum.h>

#include "../nf/host.h"

static uint64_t blocked[65536 / 64];
static struct onvm_nf_host *host;

static void
block(uint32_t port)
{
	blocked[port / 64] |= 1ull << port % 64;
}

static inline uint8_t
work(uint8_t *packet, uint32_t length)
{
	static const uint8_t ipv4[2] = {0x08, 0x00};
	uint32_t l4, port, checksum;
	uint16_t old;

	if (length < 42 || memcmp(packet + 12, ipv4, sizeof(ipv4)) != 0 || packet[14] >> 4 != 4 ||
	    packet[23] != 17)
		return ONVM_DROP;
	l4 = 14 + (packet[14] & 15) * 4u;
	if (l4 + 8 > length)
		return ONVM_DROP;
	port = onvm_load_be16(packet + l4 + 2);
	if (blocked[port / 64] >> port % 64 & 1)
		return ONVM_DROP;
	if (packet[22] <= 1)
		return ONVM_DROP;
	packet[22]--;
	/* The TTL is the high byte of its word: the checksum rises by 0x0100 (RFC 1624). */
	memcpy(&old, packet + 24, 2);
	checksum = (uint32_t)old + 1;
	old = (uint16_t)(checksum + (checksum >> 16));
	memcpy(packet + 24, &old, 2);
	return ONVM_NEXT;
}

static void
w2(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	(void)ctx;
	/* The runtime has prefetched what `data` points to. */
	for (uint32_t i = 0; i < nb_pkts; i++)
		pkts[i].verdict = work(pkts[i].data, pkts[i].length);
}

static void
interrupt(int number)
{
	(void)number;
	onvm_nf_host_interrupt(host);
}

int
main(int argc, char **argv)
{
	static struct onvm_attach_hello hello;
	cpu_set_t cpus;
	int event;

	if (argc != 6) {
		fprintf(stderr, "usage: %s SOCKET SERVICE NB_STAGES BURST_SIZE CPU\n", argv[0]);
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&cpus);
	CPU_SET((size_t)atoi(argv[5]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
		perror("sched_setaffinity");
	block(9999);
	for (uint32_t i = 0; i < 64; i++)
		block(20000 + i * 7);
	host = onvm_nf_host_create();
	if (host == NULL)
		return 1;
	hello.nb_stages = (uint32_t)atoi(argv[3]);
	hello.burst_size = (uint32_t)atoi(argv[4]);
	for (uint32_t i = 0; i < hello.nb_stages; i++) {
		onvm_nf_host_set_stage(host, i, w2, NULL);
		snprintf(hello.stage[i].service, ONVM_NAME_LENGTH,
			 hello.nb_stages == 1 ? "%s" : "%s%u", argv[2], i);
	}
	if (getenv("ONVM_ATTACH_SECRET") != NULL)
		snprintf(hello.secret, sizeof(hello.secret), "%s", getenv("ONVM_ATTACH_SECRET"));
	signal(SIGTERM, interrupt);
	if (onvm_nf_host_attach(host, argv[1], &hello, 5000) != 0) {
		fprintf(stderr, "%s\n", onvm_nf_host_error(host));
		return 1;
	}
	onvm_nf_host_ready(host);
	do {
		event = onvm_nf_host_run(host, 0);
	} while (event != ONVM_EVENT_MESSAGE && event != ONVM_EVENT_INTERRUPT &&
		 event != ONVM_EVENT_DETACHED);
	onvm_nf_host_free(host);
	return 0;
}
