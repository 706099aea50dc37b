/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: a plain, word-by-word RFC 1071 sum is the oracle.
 *  - the fast sum agrees with it at every length and alignment
 *  - an incremental update agrees with summing again, and keeps 0x0000 and 0xffff apart (RFC 1624)
 */
#include <string.h>

#include <onvm/checksum.h>

#include "test.h"

static uint16_t
plain_checksum(const uint8_t *data, uint32_t length)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < length; i++) {
		sum += (uint32_t)data[i] << (i % 2 ? 0 : 8);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)~sum;
}

static uint16_t
fast_checksum(const uint8_t *data, uint32_t length)
{
	const uint16_t folded = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, data, length));

	return onvm_load_be16((const uint8_t *)&folded);
}

static void
test_sum_agrees_with_rfc_1071(void)
{
	uint64_t seed = test_seed(3);

	for (uint32_t length = 0; length < 200; length++) {
		for (uint32_t shift = 0; shift < 4; shift++) {
			uint8_t *data = malloc(shift + length + 1);

			CHECK(data != NULL);
			for (uint32_t i = 0; i < length; i++)
				data[shift + i] = (uint8_t)test_random(&seed);
			CHECK_EQUAL(fast_checksum(data + shift, length),
				    plain_checksum(data + shift, length));
			free(data);
		}
	}
}

static void
test_update_agrees_with_summing_again(void)
{
	uint64_t seed = test_seed(4);
	uint8_t header[20];

	for (int round = 0; round < 100000; round++) {
		uint8_t before[4], *const field = &header[12];

		for (uint32_t i = 0; i < sizeof(header); i++)
			header[i] = (uint8_t)(test_random(&seed) & (round % 3 ? 0xff : 0x01));
		header[0] = 0x45; /* never all zero: there the two zeros of RFC 1624 differ */
		onvm_store_be16(&header[10], 0);
		onvm_store_be16(&header[10], plain_checksum(header, sizeof(header)));
		memcpy(before, field, 4);
		onvm_store_be32(field, test_random(&seed) & (round % 5 ? 0xffffffff : 0));
		onvm_checksum_replace(&header[10], before, field, 4);
		CHECK_EQUAL(plain_checksum(header, sizeof(header)), 0);
	}
}

static void
test_example_of_rfc_1624(void)
{
	/* Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, not 0xFFFF. */
	uint8_t checksum[2], old_word[2], new_word[2];

	onvm_store_be16(checksum, 0xdd2f);
	onvm_store_be16(old_word, 0x5555);
	onvm_store_be16(new_word, 0x3285);
	onvm_checksum_replace(checksum, old_word, new_word, 2);
	CHECK_EQUAL(onvm_load_be16(checksum), 0x0000);
}

int
main(void)
{
	RUN(test_sum_agrees_with_rfc_1071);
	RUN(test_update_agrees_with_summing_again);
	RUN(test_example_of_rfc_1624);
	return 0;
}
