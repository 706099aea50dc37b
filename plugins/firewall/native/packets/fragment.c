/* SPDX-License-Identifier: Apache-2.0 */
#include "fragment.h"

#include <string.h>

#define DATAGRAMS_MAX 4096u
#define LIFE_NS 30000000000ull /* as long as Linux waits for the rest */

/** What a datagram is known by while it is in pieces (RFC 791, RFC 8200 4.5). */
struct datagram_key {
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint8_t id[4];
	uint8_t protocol; /**< 0 with IPv6: only that of the first fragment counts */
	uint8_t ip_version;
	uint16_t vlan[ONVM_VLANS_MAX]; /**< as in a connection's key */
	uint8_t pad[2];
};
static_assert(sizeof(struct datagram_key) == 48, "a multiple of 16: looked up in place");

struct datagram {
	uint32_t end; /**< bytes of the first fragment */
	uint32_t has_passed;
};

struct onvm_flow_table *
fragment_table_create(void)
{
	return onvm_flow_table_create(DATAGRAMS_MAX, sizeof(struct datagram_key),
				      sizeof(struct datagram));
}

static void
key_fill(struct datagram_key *key, const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *const l3 = data + headers->l3_offset;

	memset(key, 0, sizeof(*key));
	key->ip_version = headers->ip_version;
	if (headers->ip_version == 4) {
		memcpy(key->src, l3 + 12, 4);
		memcpy(key->dst, l3 + 16, 4);
		memcpy(key->id, l3 + 4, 2);
		key->protocol = headers->protocol;
	} else {
		memcpy(key->src, l3 + 8, ONVM_ADDRESS_BYTES);
		memcpy(key->dst, l3 + 24, ONVM_ADDRESS_BYTES);
		memcpy(key->id, data + headers->fragment_header + 4, 4);
	}
	for (uint32_t i = 0, nb = 0; i < headers->nb_vlans; i++)
		if ((headers->vlan_tci[i] & 0xfff) != 0)
			key->vlan[nb++] = headers->vlan_tci[i] & 0xfff;
}

/* The datagram of a key, or NULL when it is not known any more. */
static struct datagram *
find(struct firewall *firewall, const struct datagram_key *key, int32_t *slot, uint64_t now_ns)
{
	*slot = onvm_flow_table_lookup(firewall->datagrams, key);
	if (*slot < 0 || onvm_flow_table_is_idle(firewall->datagrams, *slot, now_ns, LIFE_NS))
		return NULL;
	return onvm_flow_value(firewall->datagrams, *slot);
}

enum fragment_verdict
fragment_judge(struct firewall *firewall, const uint8_t *data, const struct onvm_headers *headers,
	       uint64_t now_ns)
{
	const struct datagram *datagram;
	struct datagram_key key;
	int32_t slot;

	key_fill(&key, data, headers);
	datagram = find(firewall, &key, &slot, now_ns);
	if (datagram == NULL)
		return FRAGMENT_UNKNOWN;
	return datagram->has_passed && headers->fragment_offset >= datagram->end ? FRAGMENT_PASS :
										   FRAGMENT_DROP;
}

/* Bytes of the fragment: those that its offset counts. */
static uint32_t
payload_bytes(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint32_t begin = headers->ip_version == 4 ?
				       headers->l3_offset + (data[headers->l3_offset] & 15) * 4u :
				       headers->fragment_header + 8u;

	return headers->l4_offset + (uint32_t)headers->l4_length - begin;
}

void
fragment_note(struct firewall *firewall, const uint8_t *data, const struct onvm_headers *headers,
	      uint64_t now_ns, bool has_passed)
{
	struct onvm_flow_table *const table = firewall->datagrams;
	struct datagram fresh = {payload_bytes(data, headers), has_passed};
	const struct datagram *old;
	struct datagram_key key;
	int32_t slot;

	key_fill(&key, data, headers);
	old = find(firewall, &key, &slot, now_ns);
	if (old != NULL) {
		fresh.end = fresh.end > old->end ? fresh.end : old->end;
		fresh.has_passed &= old->has_passed;
	}
	if (slot < 0) {
		if (onvm_flow_table_count(table) == DATAGRAMS_MAX)
			onvm_flow_table_evict(table, NULL, NULL);
		slot = onvm_flow_table_add(table, &key, now_ns);
		if (slot < 0)
			return;
	}
	*(struct datagram *)onvm_flow_value(table, slot) = fresh;
	onvm_flow_table_touch(table, slot, now_ns);
	onvm_flow_table_set_evictable(table, slot, false); /* to the end of the queue */
	onvm_flow_table_set_evictable(table, slot, true);
}
