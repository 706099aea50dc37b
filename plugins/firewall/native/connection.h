/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_CONNECTION_H_
#define _ONVM_FIREWALL_CONNECTION_H_

/**
 * @file
 * A connection as the table knows it: one entry, whichever way its packets go.
 *
 * Entries that a stranger makes with one packet (half open, closed, without a reply) are evictable:
 * when the table is full, the oldest of them gives way.
 */

#include <string.h>

#include <onvm/address.h>
#include <onvm/icmp_error.h>
#include <onvm/nf.h>
#include <onvm/tables.h>

#include "firewall.h"
#include "tcp.h"

#define CONNECTION_END_BYTES (ONVM_ADDRESS_BYTES + 2) /* address, port */

/**
 * Both ends, the lower one (bytewise, address before port) first; of an ICMP query the end that asks
 * is the low one.
 */
struct connection_key {
	uint8_t low[CONNECTION_END_BYTES], high[CONNECTION_END_BYTES];
	uint8_t protocol;
	uint8_t ip_version;
	uint8_t icmp_type; /**< of the query; 0: no query */
	uint8_t pad;
	uint16_t vlan[ONVM_VLANS_MAX]; /**< numbers, outermost first, without those that are 0 */
};
static_assert(sizeof(struct connection_key) == 48, "a multiple of 16: looked up in place");

struct connection {
	struct tcp_connection tcp; /**< zero for other protocols */
	uint8_t initiator_is_high;
	uint8_t has_reply;
	uint8_t pad[2];
};
static_assert(sizeof(struct connection) == 40, "it lies in snapshots");

/** A connection as it is saved. */
struct firewall_saved {
	struct connection_key key;
	struct connection connection;
	uint64_t age_ns; /**< since it was used */
};
static_assert(sizeof(struct firewall_saved) == 96, "it lies in snapshots");

/**
 * @param src  address of the IP version's size, then port, in `src_port`, host order
 * @return whether the source is the higher end
 */
static inline bool
connection_key_fill(struct connection_key *key, const struct onvm_headers *vlans,
		    uint8_t ip_version, uint8_t protocol, const uint8_t *src, const uint8_t *dst,
		    uint16_t src_port, uint16_t dst_port)
{
	uint8_t *from, *to;
	bool is_high;

	memset(key, 0, sizeof(*key));
	if (ip_version == 4) {
		is_high = ((uint64_t)onvm_load_be32(src) << 16 | src_port) >
			  ((uint64_t)onvm_load_be32(dst) << 16 | dst_port);
	} else {
		const int order = memcmp(src, dst, ONVM_ADDRESS_BYTES);

		is_high = order != 0 ? order > 0 : src_port > dst_port;
	}
	from = is_high ? key->high : key->low;
	to = is_high ? key->low : key->high;
	if (ip_version == 4) {
		memcpy(from, src, 4);
		memcpy(to, dst, 4);
	} else {
		memcpy(from, src, ONVM_ADDRESS_BYTES);
		memcpy(to, dst, ONVM_ADDRESS_BYTES);
	}
	onvm_store_be16(from + ONVM_ADDRESS_BYTES, src_port);
	onvm_store_be16(to + ONVM_ADDRESS_BYTES, dst_port);
	key->protocol = protocol;
	key->ip_version = ip_version;
	for (uint32_t i = 0, nb = 0; i < vlans->nb_vlans; i++)
		if ((vlans->vlan_tci[i] & 0xfff) != 0)
			key->vlan[nb++] = vlans->vlan_tci[i] & 0xfff;
	return is_high;
}

/** Make it the key of a query of @p type with @p identifier, or of its reply. */
static inline void
connection_key_fill_query(struct connection_key *key, const struct onvm_headers *vlans,
			  uint8_t ip_version, uint8_t protocol, const uint8_t *src,
			  const uint8_t *dst, uint16_t identifier, uint8_t type, bool is_reply)
{
	const bool is_high = connection_key_fill(key, vlans, ip_version, protocol, src, dst,
						 identifier, identifier);

	key->icmp_type = type;
	if (is_high != is_reply) {
		uint8_t end[CONNECTION_END_BYTES];

		memcpy(end, key->low, sizeof(end));
		memcpy(key->low, key->high, sizeof(end));
		memcpy(key->high, end, sizeof(end));
	}
}

/** The entry of @p slot, or -ENOENT when it is idle: then it is gone. */
int32_t connection_check(struct firewall *firewall, int32_t slot, uint64_t now_ns);
/** The entry of @p key, or -ENOENT when there is none that is not idle; changes nothing. */
int32_t
connection_find(struct firewall *firewall, const struct connection_key *key, uint64_t now_ns);
/** Say that a packet has used the connection, after its state was changed. */
void connection_use(struct firewall *firewall, int32_t slot, uint8_t protocol, uint64_t now_ns);
void connection_forget(struct firewall *firewall, int32_t slot);
/**
 * Add a connection; others give way if that is needed.
 *
 * @return its slot; the caller fills its value and calls connection_use(). Or
 *         -FIREWALL_DROP_TABLE_FULL, -FIREWALL_DROP_SOURCE_LIMIT
 */
int32_t connection_add(struct firewall *firewall, const struct connection_key *key,
		       bool initiator_is_high, uint64_t now_ns);
/** Count the connection of @p slot as one of its source's; for those that are taken over. */
int connection_count(struct firewall *firewall, int32_t slot);
/** Delete idle connections, paced by the clock. @return how many */
uint32_t connection_sweep(struct firewall *firewall, uint64_t now_ns);

#endif /* _ONVM_FIREWALL_CONNECTION_H_ */
