/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_CONNECTION_H_
#define _ONVM_FIREWALL_CONNECTION_H_

/** @file A connection as the table knows it: one entry, whichever way its packets go. */

#include <string.h>

#include <onvm/address.h>
#include <onvm/icmp_error.h>
#include <onvm/tables.h>
#include <onvm/tcp_track.h>

#define CONNECTION_END_BYTES (ONVM_ADDRESS_BYTES + 2) /* address, port */

/** Both ends, the lower one (bytewise, address before port) first. */
struct connection_key {
	uint8_t low[CONNECTION_END_BYTES], high[CONNECTION_END_BYTES];
	uint8_t protocol;
	uint8_t ip_version;
	uint8_t pad[10];
};
static_assert(sizeof(struct connection_key) == 48, "a multiple of 16: looked up in place");

struct connection {
	uint8_t tcp_state; /* enum onvm_tcp_track */
	uint8_t initiator_is_high;
	uint8_t pad[6];
};
static_assert(sizeof(struct connection) == 8, "value size");

/** A connection as it is saved. */
struct firewall_saved {
	struct connection_key key;
	struct connection connection;
	uint64_t age_ns; /**< since it was used */
};
static_assert(sizeof(struct firewall_saved) == 64, "it lies in snapshots");

/**
 * @param src  address of the IP version's size, then port, in `src_port`, host order
 * @return whether the source is the higher end
 */
static inline bool
connection_key_fill(struct connection_key *key, uint8_t ip_version, uint8_t protocol,
		    const uint8_t *src, const uint8_t *dst, uint16_t src_port, uint16_t dst_port)
{
	const uint32_t size = onvm_address_bytes(ip_version);
	uint8_t from[CONNECTION_END_BYTES] = {0}, to[CONNECTION_END_BYTES] = {0};
	bool is_high;

	memcpy(from, src, size);
	memcpy(to, dst, size);
	onvm_store_be16(from + ONVM_ADDRESS_BYTES, src_port);
	onvm_store_be16(to + ONVM_ADDRESS_BYTES, dst_port);
	is_high = memcmp(from, to, sizeof(from)) > 0;
	memset(key, 0, sizeof(*key));
	memcpy(key->low, is_high ? to : from, sizeof(key->low));
	memcpy(key->high, is_high ? from : to, sizeof(key->high));
	key->protocol = protocol;
	key->ip_version = ip_version;
	return is_high;
}

#endif /* _ONVM_FIREWALL_CONNECTION_H_ */
