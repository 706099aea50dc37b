/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PEER_KEYS_H_
#define _ONVM_PEER_KEYS_H_

/**
 * @file
 * The keys for the datagrams of one peer, as workers use them.
 *
 * Each direction has keys of its own. The receiver numbers those for what it receives, and the
 * sender puts the number into each datagram, so both go over to a new key without losing any.
 * Places are used in turn: a key stays readable while three others follow, and those are seconds
 * apart at least, where a worker uses a key for one burst.
 *
 * Threads: the probing thread sets; workers read.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "peers/security/crypto.h"

#define ONVM_KEY_PLACES 4 /**< a power of two */

struct onvm_in_key {
	uint32_t generation; /**< atomic: counts keys of all peers; 0: there is none */
	uint8_t number;
	struct onvm_gcm_key key;
};

struct onvm_out_key {
	uint8_t number; /**< as the peer has given it */
	struct onvm_gcm_key key;
};

struct onvm_peer_keys {
	uint8_t out_place; /**< atomic: 1 and the place in `out` that is used; 0: none yet */
	struct onvm_in_key in[ONVM_KEY_PLACES]; /**< key n at n % ONVM_KEY_PLACES */
	struct onvm_out_key out[ONVM_KEY_PLACES];
};

/** Accept datagrams under key @p number. */
void onvm_keys_set_in(struct onvm_peer_keys *keys, uint8_t number, const uint8_t *bytes);
/** Accept none under key @p number any more. */
void onvm_keys_end_in(struct onvm_peer_keys *keys, uint8_t number);
/** Send under this key from now on. */
void onvm_keys_set_out(struct onvm_peer_keys *keys, uint8_t number, const uint8_t *bytes);

/** The key to send under; NULL: none is agreed yet. */
static inline const struct onvm_out_key *
onvm_keys_out(const struct onvm_peer_keys *keys)
{
	/* K2: pairs with the release store K1 in onvm_keys_set_out(). */
	const uint8_t place = __atomic_load_n(&keys->out_place, __ATOMIC_ACQUIRE);

	return place == 0 ? NULL : &keys->out[place - 1];
}

/** Key @p number for what is received, and its generation; NULL: there is none. */
static inline const struct onvm_gcm_key *
onvm_keys_in(const struct onvm_peer_keys *keys, uint8_t number, uint32_t *generation)
{
	const struct onvm_in_key *key = &keys->in[number % ONVM_KEY_PLACES];

	/* K2: pairs with the release store K1 in onvm_keys_set_in(). */
	*generation = __atomic_load_n(&key->generation, __ATOMIC_ACQUIRE);
	return *generation == 0 || key->number != number ? NULL : &key->key;
}

#endif /* _ONVM_PEER_KEYS_H_ */
