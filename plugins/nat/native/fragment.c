/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fragments. The first one of a datagram has ports and is translated like any packet. What became of
 * its addresses is remembered for those behind it, which have none (RFC 4787 REQ-14). The table is
 * small, and the datagram whose first fragment came longest ago gives way (REQ-14a).
 */

#include "nat.h"

#include <string.h>

#include <onvm/rewrite.h>

#define LIFE_NS 30000000000ull /* as long as Linux waits for the rest */

/** What a datagram is known by while it is in pieces (RFC 791), as it comes in. */
struct nat_datagram_key {
	uint8_t src[4], dst[4];
	uint8_t id[2];
	uint8_t protocol;
	uint8_t vlan[3];
	uint8_t is_inbound;
	uint8_t pad;
};
static_assert(sizeof(struct nat_datagram_key) == 16, "looked up in place");

struct nat_datagram {
	uint8_t src[4], dst[4]; /**< what they become */
	uint32_t end;		/**< bytes of the first fragment */
};

struct onvm_flow_table *
nat_fragment_table_create(void)
{
	return onvm_flow_table_create(NAT_DATAGRAMS_MAX, sizeof(struct nat_datagram_key),
				      sizeof(struct nat_datagram));
}

/* @p ends: source and destination as they came in. */
static bool
key_fill(struct nat *nat, struct nat_datagram_key *key, const uint8_t *data,
	 const struct onvm_headers *headers, const uint8_t *ends, bool is_inbound)
{
	memset(key, 0, sizeof(*key));
	memcpy(key->src, ends, sizeof(key->src));
	memcpy(key->dst, ends + 4, sizeof(key->dst));
	memcpy(key->id, data + headers->l3_offset + 4, sizeof(key->id));
	key->protocol = headers->protocol;
	key->is_inbound = is_inbound;
	return nat_vlan_fill(nat, headers, key->vlan);
}

void
nat_fragment_note(struct nat *nat, const uint8_t *data, const struct onvm_headers *headers,
		  const uint8_t *ends, bool is_inbound, uint64_t now_ns)
{
	struct onvm_flow_table *const table = nat->datagrams;
	struct nat_datagram *datagram;
	struct nat_datagram_key key;
	int32_t slot;

	if (!key_fill(nat, &key, data, headers, ends, is_inbound))
		return;
	slot = onvm_flow_table_lookup(table, &key);
	if (slot < 0) {
		if (onvm_flow_table_count(table) == NAT_DATAGRAMS_MAX)
			onvm_flow_table_evict(table, NULL, NULL);
		slot = onvm_flow_table_add(table, &key, now_ns);
		if (slot < 0)
			return;
	}
	datagram = onvm_flow_value(table, slot);
	memcpy(datagram->src, data + headers->l3_offset + 12, sizeof(datagram->src));
	memcpy(datagram->dst, data + headers->l3_offset + 16, sizeof(datagram->dst));
	datagram->end = headers->l4_length;
	onvm_flow_table_touch(table, slot, now_ns);
	onvm_flow_table_set_evictable(table, slot, false); /* to the end of the queue */
	onvm_flow_table_set_evictable(table, slot, true);
}

bool
nat_fragment_translate(struct nat *nat, uint8_t *data, const struct onvm_headers *headers,
		       bool is_inbound, uint64_t now_ns)
{
	const uint8_t *const ends = data + headers->l3_offset + 12;
	const struct nat_datagram *datagram;
	struct nat_datagram_key key;
	int32_t slot;

	if (!key_fill(nat, &key, data, headers, ends, is_inbound))
		return false;
	slot = onvm_flow_table_lookup(nat->datagrams, &key);
	if (slot < 0 || onvm_flow_is_idle(nat->datagrams, slot, now_ns, LIFE_NS))
		return false;
	datagram = onvm_flow_value(nat->datagrams, slot);
	/* RFC 1858, RFC 5722: none overwrites what was translated */
	if (headers->fragment_offset < datagram->end)
		return false;
	/* one that stays changes nothing */
	onvm_rewrite_end(data, headers, ONVM_SRC, datagram->src, NULL);
	onvm_rewrite_end(data, headers, ONVM_DST, datagram->dst, NULL);
	return true;
}
