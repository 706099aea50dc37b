/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/security/keys.h"

void
onvm_keys_set_in(struct onvm_peer_keys *keys, uint8_t number, const uint8_t *bytes)
{
	static uint32_t last;
	struct onvm_in_key *key = &keys->in[number % ONVM_KEY_PLACES];

	__atomic_store_n(&key->generation, 0, __ATOMIC_SEQ_CST);
	key->number = number;
	onvm_gcm_set_key(&key->key, bytes);
	if (++last == 0)
		last = 1;
	/* K1: pairs with the acquire load K2 in onvm_keys_in(). */
	__atomic_store_n(&key->generation, last, __ATOMIC_RELEASE);
}

void
onvm_keys_end_in(struct onvm_peer_keys *keys, uint8_t number)
{
	struct onvm_in_key *key = &keys->in[number % ONVM_KEY_PLACES];

	if (key->number == number)
		__atomic_store_n(&key->generation, 0, __ATOMIC_RELEASE);
}

void
onvm_keys_set_out(struct onvm_peer_keys *keys, uint8_t number, const uint8_t *bytes)
{
	const uint8_t place = keys->out_place % ONVM_KEY_PLACES;

	keys->out[place].number = number;
	onvm_gcm_set_key(&keys->out[place].key, bytes);
	/* K1: pairs with the acquire load K2 in onvm_keys_out(). */
	__atomic_store_n(&keys->out_place, place + 1, __ATOMIC_RELEASE);
}
