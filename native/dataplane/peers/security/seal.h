/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_SEAL_H_
#define _ONVM_SEAL_H_

/**
 * @file
 * What is added to a datagram so that the peer can tell that it is genuine, and new.
 *
 * ```
 *  VXLAN-GPE | NSH | frame | key number (8) | stream (8) | number (48) | tag (128 bits)
 * ```
 *
 * The tag covers all before it. With encryption NSH and frame are the text. A *stream* is what one
 * socket of a peer sends, and its datagrams are numbered from 1. The nonce is the source port and
 * the 64 bits before the tag; so a datagram that is sent again from another port is not genuine, and
 * each worker sees all of the streams that it sees at all.
 */

#include <string.h>

#include <onvm/checksum.h>

#include "peers/security/keys.h"

#define ONVM_SEAL_BYTES (8 + ONVM_GCM_TAG_BYTES)
#define ONVM_SEAL_CLEAR_BYTES 8 /**< never encrypted: VXLAN-GPE */
#define ONVM_SEAL_NUMBER_BITS 48

enum onvm_security {
	ONVM_SECURITY_NONE = 0,
	ONVM_SECURITY_AUTH = 1,	   /**< datagrams are authenticated */
	ONVM_SECURITY_ENCRYPT = 2, /**< and encrypted */
};

static inline void
onvm_seal_store64(uint8_t *data, uint64_t value)
{
	onvm_store_be32(data, (uint32_t)(value >> 32));
	onvm_store_be32(data + 4, (uint32_t)value);
}

static inline uint64_t
onvm_seal_load64(const uint8_t *data)
{
	return (uint64_t)onvm_load_be32(data) << 32 | onvm_load_be32(data + 4);
}

/** The nonce of a datagram from source port @p port whose trailer is @p trailer. */
static inline void
onvm_seal_nonce(uint8_t *nonce, uint16_t port, const uint8_t *trailer)
{
	onvm_store_be16(nonce, 0);
	onvm_store_be16(nonce + 2, port);
	memcpy(nonce + 4, trailer, 8);
}

/** Bytes of a datagram that are authenticated only; the rest is encrypted. */
static inline uint32_t
onvm_seal_clear(enum onvm_security security, uint32_t length)
{
	return security == ONVM_SECURITY_ENCRYPT ? ONVM_SEAL_CLEAR_BYTES : length;
}

/** Seal a datagram of @p length bytes; ONVM_SEAL_BYTES follow it. */
static inline void
onvm_seal(const struct onvm_out_key *key, enum onvm_security security, uint8_t stream,
	  uint64_t number, uint16_t port, uint8_t *data, uint32_t length)
{
	const uint32_t nb_clear = onvm_seal_clear(security, length);
	uint8_t *trailer = data + length;
	uint8_t nonce[ONVM_GCM_NONCE_BYTES];

	onvm_seal_store64(trailer, (uint64_t)key->number << 56 |
					   (uint64_t)stream << ONVM_SEAL_NUMBER_BITS | number);
	onvm_seal_nonce(nonce, port, trailer);
	onvm_gcm_seal(&key->key, nonce, data, nb_clear, data + nb_clear, length - nb_clear,
		      trailer + 8);
}

/** The trailer of a datagram, taken apart. */
struct onvm_seal {
	uint8_t key, stream;
	uint64_t number;
};

/** Read the trailer of a datagram of @p length bytes, trailer included; false: too short. */
static inline bool
onvm_seal_read(const uint8_t *data, uint32_t length, struct onvm_seal *seal)
{
	uint64_t word;

	if (length < ONVM_SEAL_CLEAR_BYTES + ONVM_SEAL_BYTES)
		return false;
	word = onvm_seal_load64(data + length - ONVM_SEAL_BYTES);
	seal->key = (uint8_t)(word >> 56);
	seal->stream = (uint8_t)(word >> ONVM_SEAL_NUMBER_BITS);
	seal->number = word & ((1ull << ONVM_SEAL_NUMBER_BITS) - 1);
	return true;
}

/** Whether a datagram of @p length bytes, trailer included, is genuine; it is decrypted then. */
static inline bool
onvm_seal_open(const struct onvm_gcm_key *key, enum onvm_security security, uint16_t port,
	       uint8_t *data, uint32_t length)
{
	const uint32_t nb = length - ONVM_SEAL_BYTES;
	const uint32_t nb_clear = onvm_seal_clear(security, nb);
	uint8_t nonce[ONVM_GCM_NONCE_BYTES];

	onvm_seal_nonce(nonce, port, data + nb);
	return onvm_gcm_open(key, nonce, data, nb_clear, data + nb_clear, nb - nb_clear,
			     data + nb + 8);
}

#endif /* _ONVM_SEAL_H_ */
