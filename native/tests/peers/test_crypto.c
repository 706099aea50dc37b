/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: known answers of AES-128-GCM (McGrew and Viega, test case 4) and HMAC-SHA-256 (RFC 4231,
 * cases 1 and 2, whose short keys end in zeros here). Then texts of all lengths: their sum is what
 * another implementation computed, what is sealed opens, and nothing that was changed does. The test
 * is built with each library that there is.
 */
#include "peers/security/crypto.h"

#include <string.h>

#include "test.h"

#define TEXT_MAX 300

static struct onvm_gcm_key key;

static void
test_known_answers_of_gcm(void)
{
	static const uint8_t bytes[] = {0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c,
					0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08};
	static const uint8_t nonce[] = {0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce,
					0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88};
	static const uint8_t plain[] = {0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5, 0xa5, 0x59,
					0x09, 0xc5, 0xaf, 0xf5, 0x26, 0x9a, 0x86, 0xa7, 0xa9, 0x53,
					0x15, 0x34, 0xf7, 0xda, 0x2e, 0x4c, 0x30, 0x3d, 0x8a, 0x31,
					0x8a, 0x72, 0x1c, 0x3c, 0x0c, 0x95, 0x95, 0x68, 0x09, 0x53,
					0x2f, 0xcf, 0x0e, 0x24, 0x49, 0xa6, 0xb5, 0x25, 0xb1, 0x6a,
					0xed, 0xf5, 0xaa, 0x0d, 0xe6, 0x57, 0xba, 0x63, 0x7b, 0x39};
	static const uint8_t aad[] = {0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed,
				      0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xab, 0xad, 0xda, 0xd2};
	static const uint8_t cipher[] = {0x42, 0x83, 0x1e, 0xc2, 0x21, 0x77, 0x74, 0x24};
	static const uint8_t wanted[] = {0x5b, 0xc9, 0x4f, 0xbc, 0x32, 0x21, 0xa5, 0xdb,
					 0x94, 0xfa, 0xe9, 0x5a, 0xe7, 0x12, 0x1a, 0x47};
	uint8_t text[sizeof(plain)], tag[ONVM_GCM_TAG_BYTES];

	memcpy(text, plain, sizeof(text));
	onvm_gcm_set_key(&key, bytes);
	onvm_gcm_seal(&key, nonce, aad, sizeof(aad), text, sizeof(text), tag);
	CHECK(memcmp(text, cipher, sizeof(cipher)) == 0);
	CHECK(memcmp(tag, wanted, sizeof(tag)) == 0);
	CHECK(onvm_gcm_open(&key, nonce, aad, sizeof(aad), text, sizeof(text), tag));
	CHECK(memcmp(text, plain, sizeof(text)) == 0);
}

static void
test_known_answers_of_hmac(void)
{
	static const uint8_t wanted1[] = {0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53,
					  0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b,
					  0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7,
					  0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7};
	static const uint8_t wanted2[] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e,
					  0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
					  0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83,
					  0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43};
	static const char data2[] = "what do ya want for nothing?";
	uint8_t secret[ONVM_HMAC_BYTES] = {0}, mac[ONVM_HMAC_BYTES];

	memset(secret, 0x0b, 20);
	onvm_hmac(secret, (const uint8_t *)"Hi There", 8, mac);
	CHECK(memcmp(mac, wanted1, sizeof(mac)) == 0);
	memset(secret, 0, sizeof(secret));
	memcpy(secret, "Jefe", 4);
	onvm_hmac(secret, (const uint8_t *)data2, sizeof(data2) - 1, mac);
	CHECK(memcmp(mac, wanted2, sizeof(mac)) == 0);
}

static void
fill(uint8_t *aad, uint8_t *text, uint8_t *nonce, uint32_t nb)
{
	memset(nonce, 0, ONVM_GCM_NONCE_BYTES);
	nonce[10] = (uint8_t)(nb >> 8);
	nonce[11] = (uint8_t)nb;
	for (uint32_t i = 0; i < nb % 64; i++)
		aad[i] = (uint8_t)(i * 3 + nb);
	for (uint32_t i = 0; i < nb; i++)
		text[i] = (uint8_t)(i * 5 + nb);
}

static void
test_all_lengths(void)
{
	static const uint8_t wanted[] = {0xd1, 0x4b, 0xec, 0x33, 0x88, 0x0d, 0x43, 0xf6,
					 0x02, 0x96, 0x52, 0x01, 0x74, 0x2a, 0xd9, 0xbd};
	uint8_t bytes[ONVM_GCM_KEY_BYTES], sum[ONVM_GCM_TAG_BYTES] = {0};
	uint8_t nonce[ONVM_GCM_NONCE_BYTES], aad[64], text[TEXT_MAX], before[TEXT_MAX];
	uint8_t tag[ONVM_GCM_TAG_BYTES];

	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i;
	onvm_gcm_set_key(&key, bytes);
	for (uint32_t nb = 0; nb < TEXT_MAX; nb++) {
		fill(aad, text, nonce, nb);
		memcpy(before, text, nb);
		onvm_gcm_seal(&key, nonce, aad, nb % 64, text, nb, tag);
		for (uint32_t i = 0; i < sizeof(sum); i++)
			sum[i] ^= tag[i];
		for (uint32_t i = 0; i < nb; i++)
			sum[i % sizeof(sum)] ^= text[i];
		CHECK(onvm_gcm_open(&key, nonce, aad, nb % 64, text, nb, tag));
		CHECK(memcmp(text, before, nb) == 0);
		onvm_gcm_seal(&key, nonce, aad, nb % 64, text, nb, tag);
		tag[nb % sizeof(tag)] ^= (uint8_t)(1u << nb % 8);
		CHECK(!onvm_gcm_open(&key, nonce, aad, nb % 64, text, nb, tag));
	}
	CHECK(memcmp(sum, wanted, sizeof(sum)) == 0);
}

int
main(void)
{
	CHECK_EQUAL(onvm_crypto_init(), 0);
	RUN(test_known_answers_of_gcm);
	RUN(test_known_answers_of_hmac);
	RUN(test_all_lengths);
	return 0;
}
