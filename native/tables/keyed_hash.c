/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/keyed_hash.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

struct keyed_hash_secret keyed_hash_secret;

/* Up to 256 bytes come whole, and no signal cuts them (getrandom(2)). */
static int
draw(void *data, size_t bytes)
{
	return getrandom(data, bytes, 0) == (ssize_t)bytes ? 0 : -errno;
}

static int secret_status;

static void
secret_draw(void)
{
#if defined(__x86_64__)
	keyed_hash_secret.has_aes = __builtin_cpu_supports("aes") != 0;
#endif
	secret_status = draw(keyed_hash_secret.key, sizeof(keyed_hash_secret.key));
}

int
keyed_hash_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, secret_draw);
	return secret_status;
}

int
keyed_hash_draw(uint32_t *tweak)
{
	const int rc = keyed_hash_init();

	return rc != 0 ? rc : draw(tweak, sizeof(*tweak));
}

static inline uint64_t
rotate_left(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void
sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate_left(v[1], 13) ^ v[0];
	v[3] = rotate_left(v[3], 16) ^ v[2];
	v[0] = rotate_left(v[0], 32) + v[3];
	v[2] += v[1];
	v[3] = rotate_left(v[3], 21) ^ v[0];
	v[1] = rotate_left(v[1], 17) ^ v[2];
	v[2] = rotate_left(v[2], 32);
}

/* Aumasson, Bernstein: SipHash (2012), with 1 and 3 rounds; the two halves of its result folded. */
uint32_t
keyed_hash_siphash(const void *data, uint32_t bytes, uint32_t tweak)
{
	const uint8_t *const first = data;
	uint64_t key[2], word, v[4];

	memcpy(key, keyed_hash_secret.key, sizeof(key));
	key[0] ^= tweak;
	v[0] = key[0] ^ 0x736f6d6570736575ull;
	v[1] = key[1] ^ 0x646f72616e646f6dull;
	v[2] = key[0] ^ 0x6c7967656e657261ull;
	v[3] = key[1] ^ 0x7465646279746573ull;
	for (uint32_t at = 0; at <= bytes; at += 8) {
		if (at < bytes)
			memcpy(&word, first + at, sizeof(word));
		else
			word = (uint64_t)bytes << 56;
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	word = v[0] ^ v[1] ^ v[2] ^ v[3];
	return (uint32_t)(word ^ word >> 32);
}
