/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/security/crypto.h"

#include <errno.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

/** Of the calling thread; made when it is first used, and the thread's until the process ends. */
static _Thread_local EVP_CIPHER_CTX *context;

int
onvm_crypto_init(void)
{
	return EVP_aes_128_gcm() == NULL ? -ENOTSUP : 0;
}

void
onvm_gcm_set_key(struct onvm_gcm_key *key, const uint8_t *bytes)
{
	memcpy(key->schedule, bytes, ONVM_GCM_KEY_BYTES);
}

static bool
begin(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad, uint32_t nb_aad,
      int is_encrypting)
{
	int nb;

	if (context == NULL)
		context = EVP_CIPHER_CTX_new();
	return context != NULL &&
	       EVP_CipherInit_ex(context, EVP_aes_128_gcm(), NULL, key->schedule, nonce,
				 is_encrypting) == 1 &&
	       EVP_CipherUpdate(context, NULL, &nb, aad, (int)nb_aad) == 1;
}

void
onvm_gcm_seal(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad,
	      uint32_t nb_aad, uint8_t *text, uint32_t nb_text, uint8_t *tag)
{
	int nb;

	/* Without memory for a context the tag is wrong, and the receiver drops the datagram. */
	memset(tag, 0, ONVM_GCM_TAG_BYTES);
	if (!begin(key, nonce, aad, nb_aad, 1) ||
	    (nb_text != 0 && EVP_CipherUpdate(context, text, &nb, text, (int)nb_text) != 1) ||
	    EVP_CipherFinal_ex(context, text + nb_text, &nb) != 1)
		return;
	(void)EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, ONVM_GCM_TAG_BYTES, tag);
}

bool
onvm_gcm_open(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad,
	      uint32_t nb_aad, uint8_t *text, uint32_t nb_text, const uint8_t *tag)
{
	uint8_t wanted[ONVM_GCM_TAG_BYTES];
	int nb;

	memcpy(wanted, tag, sizeof(wanted));
	return begin(key, nonce, aad, nb_aad, 0) &&
	       (nb_text == 0 || EVP_CipherUpdate(context, text, &nb, text, (int)nb_text) == 1) &&
	       EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof(wanted), wanted) == 1 &&
	       EVP_CipherFinal_ex(context, text + nb_text, &nb) == 1;
}

void
onvm_hmac(const uint8_t *key, const uint8_t *data, uint32_t nb, uint8_t *mac)
{
	unsigned int nb_mac = ONVM_HMAC_BYTES;

	(void)HMAC(EVP_sha256(), key, ONVM_HMAC_BYTES, data, nb, mac, &nb_mac);
}
