/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/security/crypto.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <intel-ipsec-mb.h>

#define BLOCK_BYTES 64 /**< of SHA-256 */

static_assert(sizeof(struct gcm_key_data) <= sizeof(struct onvm_gcm_key), "room for a key");

/** Functions for this processor; its jobs and queues are not used. */
static IMB_MGR *manager;

int
onvm_crypto_init(void)
{
	if (manager != NULL)
		return 0;
	manager = alloc_mb_mgr(0);
	if (manager == NULL)
		return -ENOMEM;
	init_mb_mgr_auto(manager, NULL);
	return 0;
}

static const struct gcm_key_data *
schedule_of(const struct onvm_gcm_key *key)
{
	return (const struct gcm_key_data *)key->schedule;
}

void
onvm_gcm_set_key(struct onvm_gcm_key *key, const uint8_t *bytes)
{
	IMB_AES128_GCM_PRE(manager, bytes, (struct gcm_key_data *)key->schedule);
}

void
onvm_gcm_seal(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad,
	      uint32_t nb_aad, uint8_t *text, uint32_t nb_text, uint8_t *tag)
{
	struct gcm_context_data context;

	IMB_AES128_GCM_ENC(manager, schedule_of(key), &context, text, text, nb_text, nonce, aad,
			   nb_aad, tag, ONVM_GCM_TAG_BYTES);
}

bool
onvm_gcm_open(const struct onvm_gcm_key *key, const uint8_t *nonce, const uint8_t *aad,
	      uint32_t nb_aad, uint8_t *text, uint32_t nb_text, const uint8_t *tag)
{
	struct gcm_context_data context;
	uint8_t right[ONVM_GCM_TAG_BYTES];

	IMB_AES128_GCM_DEC(manager, schedule_of(key), &context, text, text, nb_text, nonce, aad,
			   nb_aad, right, sizeof(right));
	return onvm_tags_are_equal(right, tag, sizeof(right));
}

void
onvm_hmac(const uint8_t *key, const uint8_t *data, uint32_t nb, uint8_t *mac)
{
	uint8_t inner[BLOCK_BYTES + ONVM_HMAC_MAX], outer[BLOCK_BYTES + ONVM_HMAC_BYTES];

	assert(nb <= ONVM_HMAC_MAX);
	memset(inner, 0x36, BLOCK_BYTES);
	memset(outer, 0x5c, BLOCK_BYTES);
	for (uint32_t i = 0; i < ONVM_HMAC_BYTES; i++) {
		inner[i] ^= key[i];
		outer[i] ^= key[i];
	}
	memcpy(inner + BLOCK_BYTES, data, nb);
	IMB_SHA256(manager, inner, BLOCK_BYTES + nb, outer + BLOCK_BYTES);
	IMB_SHA256(manager, outer, sizeof(outer), mac);
}
