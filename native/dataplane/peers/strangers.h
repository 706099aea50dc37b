/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_STRANGERS_H_
#define _ONVM_STRANGERS_H_

/**
 * @file
 * Senders of probes that are no peers, or not yet: one host of a cluster learns of a new one later
 * than another, and meanwhile that one's probes come from a stranger. So they count as foreign
 * only if their sender is still a stranger a few seconds later.
 *
 * Threads: a worker each.
 */

#include <stdint.h>
#include <string.h>

#include "peers/peers.h"

/** Strangers that are waited for at once. */
#define ONVM_STRANGERS_MAX 16
/** Seconds until they are foreign. */
#define ONVM_STRANGERS_S 3

struct onvm_strangers {
	uint32_t nb;
	struct {
		union onvm_sockaddr address;
		uint32_t since_s;
		uint32_t nb_probes;
	} senders[ONVM_STRANGERS_MAX];
};

static inline bool
onvm_strangers_are_same(const union onvm_sockaddr *a, const union onvm_sockaddr *b)
{
	uint8_t bytes[2][ONVM_ADDRESS_BYTES];

	onvm_sockaddr_bytes(a, bytes[0]);
	onvm_sockaddr_bytes(b, bytes[1]);
	return memcmp(bytes[0], bytes[1], sizeof(bytes[0])) == 0;
}

/**
 * Note a probe from a stranger at @p now_s, of any clock in seconds.
 *
 * @return the probes that are foreign: 1 if there is no place for it, else 0
 */
static inline uint32_t
onvm_strangers_note(struct onvm_strangers *strangers, const union onvm_sockaddr *address,
		    uint32_t now_s)
{
	for (uint32_t i = 0; i < strangers->nb; i++) {
		if (!onvm_strangers_are_same(&strangers->senders[i].address, address))
			continue;
		strangers->senders[i].nb_probes++;
		return 0;
	}
	if (strangers->nb == ONVM_STRANGERS_MAX)
		return 1;
	strangers->senders[strangers->nb].address = *address;
	strangers->senders[strangers->nb].since_s = now_s;
	strangers->senders[strangers->nb++].nb_probes = 1;
	return 0;
}

/** Forget the strangers whose time is over; @return probes of those that are no peers. */
static inline uint32_t
onvm_strangers_settle(struct onvm_strangers *strangers, const struct onvm_peer_index *peers,
		      uint32_t now_s)
{
	uint32_t nb_foreign = 0;

	for (uint32_t i = strangers->nb; i-- > 0;) {
		if (now_s - strangers->senders[i].since_s < ONVM_STRANGERS_S)
			continue;
		if (onvm_peers_find(peers, &strangers->senders[i].address) == 0)
			nb_foreign += strangers->senders[i].nb_probes;
		strangers->senders[i] = strangers->senders[--strangers->nb];
	}
	return nb_foreign;
}

#endif /* _ONVM_STRANGERS_H_ */
