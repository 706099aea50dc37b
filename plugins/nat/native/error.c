/* SPDX-License-Identifier: Apache-2.0 */
#include "nat.h"

#include <string.h>

/* RFC 5508 REQ-3: a damaged error is dropped, not mended. */
static bool
checksum_is_good(const uint8_t *data, const struct onvm_headers *headers)
{
	return onvm_checksum_fold(onvm_checksum_add(0, data + headers->l4_offset,
						    headers->l4_length)) == 0xffff;
}

/* onvm_parse_embedded() for all queries: each has its identifier where an echo has it. */
static bool
quoted_parse(const uint8_t *data, const struct onvm_headers *headers, struct onvm_embedded *quoted)
{
	memset(quoted, 0, sizeof(*quoted));
	if (onvm_parse_embedded(data, headers, quoted))
		return true;
	if (quoted->protocol != ONVM_PROTO_ICMP || quoted->l4_offset == 0)
		return false;
	return nat_icmp_is_query(data[quoted->l4_offset]) ||
	       nat_icmp_is_reply(data[quoted->l4_offset]);
}

enum nat_reason
nat_error_in(struct nat *nat, uint8_t *data, const struct onvm_headers *headers, uint64_t now_ns)
{
	struct onvm_embedded quoted;
	struct nat_session_key key = {0};
	const struct nat_endpoint *inside;
	const uint8_t *ip;
	enum nat_space space;
	int32_t external;
	uint8_t port[2];

	if (!checksum_is_good(data, headers) || !quoted_parse(data, headers, &quoted))
		return NAT_DROP_MALFORMED;
	ip = data + quoted.l3_offset;
	/* RFC 5508 REQ-3a */
	if (onvm_checksum_fold(onvm_checksum_add(0, ip, (ip[0] & 15) * 4u)) != 0xffff)
		return NAT_DROP_MALFORMED;
	space = nat_space_of(quoted.protocol);
	external = nat_external_find(nat, ip + 12);
	onvm_store_be16(port, quoted.src_port);
	if (space == NAT_SPACES || external < 0 || !nat_vlan_fill(nat, headers, key.vlan))
		return NAT_DROP_NO_MAPPING;
	inside = nat_endpoint_behind(nat, (uint32_t)external, space, port, key.vlan);
	if (inside == NULL)
		return NAT_DROP_NO_MAPPING;
	/* an error answers something that was sent: there must be a session (RFC 5508 REQ-4a) */
	key.protocol = quoted.protocol;
	memcpy(key.inside, inside->address, sizeof(key.inside));
	memcpy(key.inside_port, inside->port, sizeof(key.inside_port));
	memcpy(key.remote, ip + 16, sizeof(key.remote));
	if (space != NAT_ICMP)
		onvm_store_be16(key.remote_port, quoted.dst_port);
	if (nat_session_find(nat, &key, now_ns) < 0)
		return NAT_DROP_NO_MAPPING;
	onvm_rewrite_embedded(data, headers, &quoted, ONVM_SRC, key.inside, key.inside_port);
	onvm_rewrite_end(data, headers, ONVM_DST, key.inside, NULL);
	return NAT_NO_DROP;
}

enum nat_reason
nat_error_out(struct nat *nat, uint8_t *data, const struct onvm_headers *headers, uint64_t now_ns)
{
	struct nat_session_key key = {0};
	struct onvm_embedded quoted;
	const struct nat_mapping *mapping;
	const uint8_t *external;
	int32_t slot;

	if (!checksum_is_good(data, headers) || !quoted_parse(data, headers, &quoted))
		return NAT_DROP_MALFORMED;
	if (nat_space_of(quoted.protocol) == NAT_SPACES || !nat_vlan_fill(nat, headers, key.vlan))
		return NAT_DROP_NO_MAPPING;
	key.protocol = quoted.protocol;
	memcpy(key.inside, data + quoted.l3_offset + 16, sizeof(key.inside));
	onvm_store_be16(key.inside_port, quoted.dst_port);
	memcpy(key.remote, data + quoted.l3_offset + 12, sizeof(key.remote));
	if (quoted.protocol != ONVM_PROTO_ICMP)
		onvm_store_be16(key.remote_port, quoted.src_port);
	nat_backlog_clear(nat, now_ns);
	/* That of the session, which may be inherited, before the endpoint's own. */
	slot = nat_session_find(nat, &key, now_ns);
	if (slot >= 0)
		slot = ((struct nat_session *)onvm_flow_value(nat->sessions, slot))->mapping;
	else
		slot = nat_mapping_find(nat, &key);
	if (slot < 0)
		return NAT_DROP_NO_MAPPING;
	mapping = onvm_flow_value(nat->mappings, slot);
	external = nat->config.externals[mapping->external];
	onvm_rewrite_embedded(data, headers, &quoted, ONVM_DST, external, mapping->port);
	/* RFC 5508 REQ-5: also an error of a router behind the NAT comes from its address */
	onvm_rewrite_end(data, headers, ONVM_SRC, external, NULL);
	return NAT_NO_DROP;
}
