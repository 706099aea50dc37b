/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CRYPTO_H_
#define _ONVM_CRYPTO_H_

/**
 * @file
 * The algorithms by which hosts of a cluster know each other's datagrams: AES-128-GCM (NIST SP
 * 800-38D; without text it is GMAC) and HMAC-SHA-256 (RFC 2104).
 *
 * They are those of a library: Intel's IPsec-MB on x86-64 (crypto_imb.c), OpenSSL elsewhere
 * (crypto_evp.c). Measured on an EPYC with VAES, GMAC of 96 and 1,432 bytes: 24 and 75 ns with the
 * first, 167 and 327 ns with the second, which prepares a context for each packet. A native test
 * compares both.
 *
 * Threads: all calls at any time once onvm_crypto_init() has returned; a key is set before others
 * use it.
 */

#include <stdbool.h>
#include <stdint.h>

#define ONVM_GCM_KEY_BYTES 16
#define ONVM_GCM_NONCE_BYTES 12
#define ONVM_GCM_TAG_BYTES 16
#define ONVM_HMAC_BYTES 32

/** A key with what the library derives from it once. */
struct onvm_gcm_key {
	_Alignas(64) uint8_t schedule[1024];
};

/** Choose the code for this processor; 0, or -ENOTSUP: it lacks AES instructions. */
int onvm_crypto_init(void);
void onvm_gcm_set_key(struct onvm_gcm_key *key, const uint8_t *bytes);
/**
 * Encrypt @p text in place and authenticate it with @p aad.
 *
 * @param nonce  ONVM_GCM_NONCE_BYTES; never twice with one key
 * @param tag    gets ONVM_GCM_TAG_BYTES
 */
void onvm_gcm_seal(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad,
		   uint32_t nb_aad, uint8_t *text, uint32_t nb_text, uint8_t *tag);
/** Decrypt @p text in place; false: the tag is not that of text, @p aad, nonce and key. */
bool onvm_gcm_open(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad,
		   uint32_t nb_aad, uint8_t *text, uint32_t nb_text, const uint8_t *tag);
/** HMAC-SHA-256 with a key of ONVM_HMAC_BYTES; @p data at most ONVM_HMAC_MAX bytes. */
void onvm_hmac(const uint8_t *key, const uint8_t *data, uint32_t nb, uint8_t *mac);
#define ONVM_HMAC_MAX 448

/** Whether two tags are equal, in a time that tells nothing of where they differ. */
static inline bool
onvm_tags_are_equal(const uint8_t *a, const uint8_t *b, uint32_t nb)
{
	uint8_t difference = 0;

	for (uint32_t i = 0; i < nb; i++)
		difference |= (uint8_t)(a[i] ^ b[i]);
	return difference == 0;
}

#endif /* _ONVM_CRYPTO_H_ */
