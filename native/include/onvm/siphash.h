/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_SIPHASH_H_
#define _ONVM_SIPHASH_H_

/**
 * @file
 * SipHash-1-3 (Aumasson, Bernstein, "SipHash: a fast short-input PRF", 2012): without the key its
 * results cannot be told from random ones.
 */

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t
siphash_rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void
siphash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = siphash_rotate(v[1], 13) ^ v[0];
	v[3] = siphash_rotate(v[3], 16) ^ v[2];
	v[0] = siphash_rotate(v[0], 32) + v[3];
	v[2] += v[1];
	v[3] = siphash_rotate(v[3], 21) ^ v[0];
	v[1] = siphash_rotate(v[1], 17) ^ v[2];
	v[2] = siphash_rotate(v[2], 32);
}

/** The hash of @p bytes, a multiple of 8, at any address. */
static inline uint64_t
onvm_siphash(const uint64_t key[2], const void *data, uint32_t bytes)
{
	const uint8_t *const first = data;
	uint64_t v[4] = {
		key[0] ^ 0x736f6d6570736575ull,
		key[1] ^ 0x646f72616e646f6dull,
		key[0] ^ 0x6c7967656e657261ull,
		key[1] ^ 0x7465646279746573ull,
	};

	for (uint32_t at = 0; at <= bytes; at += 8) {
		uint64_t word = htole64((uint64_t)bytes << 56);

		if (at < bytes)
			memcpy(&word, first + at, sizeof(word));
		word = le64toh(word);
		v[3] ^= word;
		siphash_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif /* _ONVM_SIPHASH_H_ */
