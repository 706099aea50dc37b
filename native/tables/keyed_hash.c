/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/keyed_hash.h>
#include <onvm/siphash.h>

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

uint32_t
keyed_hash_siphash(const void *data, uint32_t bytes, uint32_t tweak)
{
	uint64_t key[2], hash;

	memcpy(key, keyed_hash_secret.key, sizeof(key));
	key[0] ^= tweak;
	hash = onvm_siphash(key, data, bytes);
	return (uint32_t)(hash ^ hash >> 32);
}
