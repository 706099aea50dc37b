/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/peers.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <rte_hash_crc.h>

void
onvm_sockaddr_bytes(const union onvm_sockaddr *address, uint8_t *bytes)
{
	if (address->any.sa_family == AF_INET6) {
		memcpy(bytes, &address->v6.sin6_addr, ONVM_ADDRESS_BYTES);
		return;
	}
	memset(bytes, 0, 10);
	bytes[10] = bytes[11] = 0xff;
	memcpy(bytes + 12, &address->v4.sin_addr, 4);
}

static uint32_t
slot_of(const struct onvm_peer_index *index, const uint8_t *bytes)
{
	return rte_hash_crc(bytes, ONVM_ADDRESS_BYTES, 0) & (index->nb_slots - 1);
}

uint16_t
onvm_peers_find(const struct onvm_peer_index *index, const union onvm_sockaddr *address)
{
	uint8_t bytes[ONVM_ADDRESS_BYTES];
	uint32_t slot;

	if (index == NULL)
		return 0;
	onvm_sockaddr_bytes(address, bytes);
	slot = slot_of(index, bytes);
	while (index->slots[slot].peer != 0 &&
	       memcmp(index->slots[slot].address, bytes, sizeof(bytes)) != 0)
		slot = (slot + 1) & (index->nb_slots - 1);
	return index->slots[slot].peer;
}

const struct onvm_left_peer *
onvm_peers_find_left(const struct onvm_peer_index *index, const union onvm_sockaddr *address,
		     uint32_t now_s)
{
	uint8_t bytes[ONVM_ADDRESS_BYTES];

	if (index == NULL)
		return NULL;
	onvm_sockaddr_bytes(address, bytes);
	for (uint32_t i = 0; i < ONVM_LEFT_MAX; i++)
		if (now_s < index->left[i].until_s &&
		    memcmp(index->left[i].address, bytes, sizeof(bytes)) == 0)
			return &index->left[i];
	return NULL;
}

struct onvm_peer_index *
onvm_peers_make_index(const struct onvm_peers *peers)
{
	const uint32_t nb_slots = ONVM_PEERS_MAX * 2;
	struct onvm_peer_index *index =
		calloc(1, sizeof(*index) + nb_slots * sizeof(index->slots[0]));

	if (index == NULL)
		return NULL;
	index->nb_slots = nb_slots;
	memcpy(index->left, peers->left, sizeof(index->left));
	for (uint16_t peer = 1; peer < ONVM_PEERS_MAX; peer++) {
		uint8_t bytes[ONVM_ADDRESS_BYTES];
		uint32_t slot;

		if (!peers->peers[peer].is_used)
			continue;
		onvm_sockaddr_bytes(&peers->peers[peer].address, bytes);
		slot = slot_of(index, bytes);
		while (index->slots[slot].peer != 0)
			slot = (slot + 1) & (nb_slots - 1);
		memcpy(index->slots[slot].address, bytes, sizeof(bytes));
		index->slots[slot].peer = peer;
	}
	return index;
}

socklen_t
onvm_sockaddr_set(union onvm_sockaddr *address, uint8_t ip_version, const uint8_t *bytes,
		  uint16_t port)
{
	memset(address, 0, sizeof(*address));
	if (ip_version == 4) {
		address->v4.sin_family = AF_INET;
		address->v4.sin_port = htons(port);
		memcpy(&address->v4.sin_addr, bytes, 4);
		return sizeof(address->v4);
	}
	address->v6.sin6_family = AF_INET6;
	address->v6.sin6_port = htons(port);
	memcpy(&address->v6.sin6_addr, bytes, ONVM_ADDRESS_BYTES);
	return sizeof(address->v6);
}
