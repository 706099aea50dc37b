/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ICMP and ICMPv6 errors about connections. An error goes to the end that sent the packet it quotes,
 * and quotes the packet as that end sent it. It changes no connection.
 */

#include "lb.h"

#include <string.h>

/* Replace one end of the quoted packet, with its own checksums. */
static void
quoted_end_set(uint8_t *data, const struct onvm_embedded *quoted, enum onvm_side side,
	       const uint8_t *address, const uint8_t *port)
{
	const uint32_t size = onvm_address_bytes(quoted->ip_version);
	const uint32_t checksum = onvm_l4_checksum_offset(quoted->protocol);
	uint8_t *const l3 = data + quoted->l3_offset;
	uint8_t *const l4 = data + quoted->l4_offset;
	uint8_t *const old_address = l3 + (quoted->ip_version == 4 ? 12 : 8) +
				     (side == ONVM_SRC ? 0 : size);
	uint8_t *const old_port = l4 + (side == ONVM_SRC ? 0 : 2);
	uint64_t delta = onvm_checksum_delta(0, old_address, address, size);

	if (quoted->ip_version == 4)
		onvm_checksum_apply(l3 + 10, delta);
	delta = onvm_checksum_delta(delta, old_port, port, 2);
	memcpy(old_address, address, size);
	memcpy(old_port, port, 2);
	if (checksum + 2 <= quoted->l4_length)
		onvm_l4_checksum_apply(l4 + checksum, quoted->protocol, delta);
}

/* An unfolded sum of what the error's checksum covers of the quoted packet's headers. */
static uint64_t
headers_sum(const uint8_t *data, const struct onvm_headers *headers,
	    const struct onvm_embedded *quoted)
{
	const uint32_t end = headers->l4_offset + headers->l4_length;
	const uint32_t headers_end = quoted->l4_offset + 20u < end ? quoted->l4_offset + 20u : end;

	return onvm_checksum_add(0, data + quoted->l3_offset, headers_end - quoted->l3_offset);
}

/* @p entry: of the packets that would answer the one that is quoted. */
static void
error_rewrite(uint8_t *data, const struct onvm_headers *headers, const struct onvm_embedded *quoted,
	      const struct lb_entry *entry, const uint8_t *client_address)
{
	/* Of a packet of the backend: what it quotes is what the client's side got. */
	const bool is_of_server = !entry->is_reply;
	uint8_t *const checksum = data + headers->l4_offset + 2;
	const uint64_t before = headers_sum(data, headers, quoted);
	uint64_t after;

	quoted_end_set(data, quoted, is_of_server ? ONVM_SRC : ONVM_DST, entry->address,
		       entry->port);
	quoted_end_set(data, quoted, is_of_server ? ONVM_DST : ONVM_SRC, client_address,
		       entry->client_port);
	after = headers_sum(data, headers, quoted);
	/* RFC 1624, equation 3, over the folded sums of what has changed */
	onvm_checksum_apply(checksum, (uint16_t)~onvm_checksum_fold(before) +
					      (uint64_t)onvm_checksum_fold(after));
	/* the error itself comes from the VIP, as all that a backend sends, or goes to the backend */
	onvm_rewrite_end(data, headers, is_of_server ? ONVM_DST : ONVM_SRC, entry->address, NULL);
}

static enum lb_reason
pass(struct lb *lb)
{
	lb->counters[LB_PASSED]++;
	return LB_NO_DROP;
}

enum lb_reason
lb_error(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	 const uint16_t *vlans, bool is_vip, uint64_t now_ns)
{
	uint8_t *const data = pkt->data;
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	const uint32_t dst = headers->l3_offset + (headers->ip_version == 4 ? 16u : 24u);
	struct lb_key key = {.ip_version = headers->ip_version};
	struct onvm_embedded quoted;
	const uint8_t *src;
	uint8_t client[ONVM_ADDRESS_BYTES];
	const struct lb_entry *entry;
	int32_t slot;

	if (!onvm_parse_embedded(data, headers, &quoted) ||
	    (quoted.protocol != ONVM_PROTO_TCP && quoted.protocol != ONVM_PROTO_UDP))
		return is_vip ? LB_DROP_MALFORMED : pass(lb);
	src = data + quoted.l3_offset + (quoted.ip_version == 4 ? 12 : 8);
	key.protocol = quoted.protocol;
	memcpy(key.vlans, vlans, sizeof(key.vlans));
	memcpy(key.src, src + size, size);
	memcpy(key.dst, src, size);
	onvm_store_be16(key.src_port, quoted.dst_port);
	onvm_store_be16(key.dst_port, quoted.src_port);
	slot = lb_connection_find(lb, &key, now_ns);
	if (slot < 0 || memcmp(data + dst, src, size) != 0)
		return is_vip ? LB_DROP_NO_CONNECTION : pass(lb);
	entry = onvm_flow_value(lb->connections, slot);
	if (entry->forward != LB_NAT && !entry->is_reply)
		return lb_forward(lb, pkt, headers, entry, lb_hash(&key, false));
	if (entry->is_direct)
		return pass(lb);
	memcpy(client, entry->is_reply ? src : src + size, size);
	error_rewrite(data, headers, &quoted, entry, client);
	lb->counters[LB_ICMP_ERRORS]++;
	return LB_NO_DROP;
}
