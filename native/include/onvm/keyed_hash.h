/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_KEYED_HASH_H_
#define _ONVM_KEYED_HASH_H_

/**
 * @file
 * A hash that an outsider cannot make collide, because it depends on a secret key.
 *
 * Seeding a CRC does not help: it is linear, so keys that collide under one seed collide under each.
 * Two rounds of AES for each block, where the CPU has them, cost about as much as a CRC; SipHash-1-3
 * is what other CPUs do.
 *
 * The key is the process's, because rte_hash hands 32 bits to its hash function and no more; these
 * are the table's and enter the key as a tweak.
 *
 * Life: keyed_hash_init() before any other call; the first one draws the key. Threads: any number may
 * compute.
 */

#include <stdbool.h>
#include <stdint.h>

struct keyed_hash_secret {
	_Alignas(16) uint8_t key[4][16];
	bool has_aes;
};

extern struct keyed_hash_secret keyed_hash_secret;

/** @return 0 or -errno of getrandom(2) */
int keyed_hash_init(void);
/** keyed_hash_init(), and draw a tweak for one table. */
int keyed_hash_draw(uint32_t *tweak);

/** The functions of keyed_hash() each: @p bytes is a multiple of 16. */
uint32_t keyed_hash_siphash(const void *data, uint32_t bytes, uint32_t tweak);

#if defined(__x86_64__)
#include <emmintrin.h>

/* As text, so that it can stand in code that is compiled for CPUs without it. */
static inline __m128i
keyed_hash_round(__m128i state, __m128i key)
{
	__asm__("aesenc %1, %0" : "+x"(state) : "x"(key));
	return state;
}

static inline __m128i
keyed_hash_block(__m128i state, __m128i block)
{
	const __m128i *const keys = (const __m128i *)keyed_hash_secret.key;

	state = _mm_xor_si128(state, block);
	return keyed_hash_round(keyed_hash_round(state, keys[1]), keys[2]);
}

static inline uint32_t
keyed_hash_end(__m128i state)
{
	const __m128i *const keys = (const __m128i *)keyed_hash_secret.key;

	state = keyed_hash_round(keyed_hash_round(state, keys[3]), keys[0]);
	return (uint32_t)_mm_cvtsi128_si32(state);
}

static inline uint32_t
keyed_hash_aes(const void *data, uint32_t bytes, uint32_t tweak)
{
	const __m128i *const keys = (const __m128i *)keyed_hash_secret.key;
	const __m128i *const blocks = data;
	__m128i state = _mm_xor_si128(keys[0], _mm_cvtsi32_si128((int)tweak));

	for (uint32_t i = 0; i < bytes / 16; i++)
		state = keyed_hash_block(state, _mm_loadu_si128(&blocks[i]));
	return keyed_hash_end(state);
}
#endif

static inline uint32_t
keyed_hash(const void *data, uint32_t bytes, uint32_t tweak)
{
#if defined(__x86_64__)
	if (keyed_hash_secret.has_aes)
		return keyed_hash_aes(data, bytes, tweak);
#endif
	return keyed_hash_siphash(data, bytes, tweak);
}

/**
 * keyed_hash() of 16 bytes without a tweak, given as words. A block that is loaded right after its
 * halves were stored would have to wait for them.
 */
static inline uint32_t
keyed_hash_words(uint64_t low, uint64_t high)
{
	const uint64_t words[2] = {low, high};

#if defined(__x86_64__)
	if (keyed_hash_secret.has_aes) {
		const __m128i *const keys = (const __m128i *)keyed_hash_secret.key;

		return keyed_hash_end(
			keyed_hash_block(keys[0], _mm_set_epi64x((long long)high, (long long)low)));
	}
#endif
	return keyed_hash_siphash(words, sizeof(words), 0);
}

#endif /* _ONVM_KEYED_HASH_H_ */
