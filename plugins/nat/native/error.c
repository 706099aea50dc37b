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

/* Session that the embedded packet belongs to, seen from the inside endpoint. */
static void
session_key_fill(struct nat_session_key *key, const struct onvm_embedded *embedded,
		 const struct nat_endpoint *inside, const uint8_t *remote, uint16_t remote_port)
{
	memset(key, 0, sizeof(*key));
	key->protocol = embedded->protocol;
	memcpy(key->inside, inside->address, sizeof(key->inside));
	memcpy(key->inside_port, inside->port, sizeof(key->inside_port));
	memcpy(key->remote, remote, sizeof(key->remote));
	if (embedded->protocol != ONVM_PROTO_ICMP)
		onvm_store_be16(key->remote_port, remote_port);
}

enum nat_reason
nat_error_in(struct nat *nat, uint8_t *data, const struct onvm_headers *headers)
{
	struct onvm_embedded embedded;
	struct nat_session_key key;
	const struct nat_endpoint *inside;
	const uint8_t *ip;
	enum nat_space space;
	uint8_t port[2];

	if (!checksum_is_good(data, headers) || !onvm_parse_embedded(data, headers, &embedded))
		return NAT_DROP_MALFORMED;
	ip = data + embedded.l3_offset;
	space = nat_space_of(embedded.protocol);
	onvm_store_be16(port, embedded.src_port);
	if (space == NAT_SPACES || memcmp(ip + 12, nat->config.external, 4) != 0)
		return NAT_DROP_NO_MAPPING;
	inside = nat_endpoint_behind(nat, space, port);
	if (inside == NULL)
		return NAT_DROP_NO_MAPPING;
	/* an error answers something that was sent: there must be a session (RFC 5508 REQ-4a) */
	session_key_fill(&key, &embedded, inside, ip + 16, embedded.dst_port);
	if (onvm_flow_table_lookup(nat->sessions, &key) < 0)
		return NAT_DROP_NO_MAPPING;
	onvm_rewrite_embedded(data, headers, &embedded, ONVM_SRC, key.inside, key.inside_port);
	onvm_rewrite_end(data, headers, ONVM_DST, key.inside, NULL);
	return NAT_NO_DROP;
}

enum nat_reason
nat_error_out(struct nat *nat, uint8_t *data, const struct onvm_headers *headers)
{
	struct nat_endpoint endpoint = {0};
	struct nat_session_key key;
	struct onvm_embedded embedded;
	const struct nat_mapping *mapping;
	int32_t slot;

	if (!checksum_is_good(data, headers) || !onvm_parse_embedded(data, headers, &embedded))
		return NAT_DROP_MALFORMED;
	if (nat_space_of(embedded.protocol) == NAT_SPACES)
		return NAT_DROP_NO_MAPPING;
	endpoint.protocol = embedded.protocol;
	memcpy(endpoint.address, data + embedded.l3_offset + 16, 4);
	onvm_store_be16(endpoint.port, embedded.dst_port);
	/* That of the session, which may be inherited, before the endpoint's own. */
	session_key_fill(&key, &embedded, &endpoint, data + embedded.l3_offset + 12,
			 embedded.src_port);
	slot = onvm_flow_table_lookup(nat->sessions, &key);
	if (slot >= 0)
		slot = ((struct nat_session *)onvm_flow_table_value(nat->sessions, slot))->mapping;
	else
		slot = onvm_flow_table_lookup(nat->mappings, &endpoint);
	if (slot < 0)
		return NAT_DROP_NO_MAPPING;
	mapping = onvm_flow_table_value(nat->mappings, slot);
	onvm_rewrite_embedded(data, headers, &embedded, ONVM_DST, nat->config.external,
			      mapping->port);
	/* RFC 5508 REQ-5: also an error of a router behind the NAT comes from its address */
	onvm_rewrite_end(data, headers, ONVM_SRC, nat->config.external, NULL);
	return NAT_NO_DROP;
}
