/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NAT_SIPHASH_H_
#define _ONVM_NAT_SIPHASH_H_

/**
 * @file
 * SipHash-1-3 (Aumasson, Bernstein, "SipHash: a fast short-input PRF", 2012) of 16 bytes: who does
 * not know the key cannot tell what it gives.
 */

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t
nat_rotate(uint64_t value, uint32_t by)
{
	return value << by | value >> (64 - by);
}

static inline void
nat_sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = nat_rotate(v[1], 13) ^ v[0];
	v[3] = nat_rotate(v[3], 16) ^ v[2];
	v[0] = nat_rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = nat_rotate(v[1], 17) ^ v[2];
	v[3] = nat_rotate(v[3], 21) ^ v[0];
	v[2] = nat_rotate(v[2], 32);
}

static inline uint64_t
nat_siphash(const uint64_t key[2], const void *data)
{
	uint64_t v[4] = {
		key[0] ^ 0x736f6d6570736575ull,
		key[1] ^ 0x646f72616e646f6dull,
		key[0] ^ 0x6c7967656e657261ull,
		key[1] ^ 0x7465646279746573ull,
	};
	uint64_t words[3] = {0, 0, 16ull << 56};

	memcpy(words, data, 16);
	words[0] = le64toh(words[0]);
	words[1] = le64toh(words[1]);
	for (uint32_t i = 0; i < 3; i++) {
		v[3] ^= words[i];
		nat_sip_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (uint32_t i = 0; i < 3; i++)
		nat_sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif /* _ONVM_NAT_SIPHASH_H_ */
