/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One-to-one translation (RFC 3022 2.1, "Basic NAT"): an inside address and an external one stand
 * for each other, for all protocols and in both directions. There is no state, so fragments come in
 * any order.
 */

#include "nat.h"

#include <errno.h>
#include <string.h>

/* Either address of a pair; the value is the other one. */
struct key {
	uint8_t address[4];
	uint8_t is_external;
	uint8_t pad[3];
};

static void
key_fill(struct key *key, const uint8_t *address, bool is_external)
{
	memset(key, 0, sizeof(*key));
	memcpy(key->address, address, sizeof(key->address));
	key->is_external = is_external;
}

int
nat_one_to_one_create(struct nat *nat)
{
	struct key key;
	int32_t slot;

	nat->pairs = onvm_flow_table_create_plain(2 * NAT_PAIRS_MAX, sizeof(struct key), 4);
	if (nat->pairs == NULL)
		return -errno;
	for (uint32_t i = 0; i < nat->config.nb_pairs; i++) {
		const uint8_t *const ends[2] = {nat->config.pairs[i].inside,
						nat->config.pairs[i].external};

		for (uint32_t is_external = 0; is_external < 2; is_external++) {
			key_fill(&key, ends[is_external], is_external != 0);
			slot = onvm_flow_table_add(nat->pairs, &key, 0);
			if (slot < 0)
				return -ENOSPC;
			memcpy(onvm_flow_value(nat->pairs, slot), ends[1 - is_external], 4);
		}
	}
	return 0;
}

const uint8_t *
nat_one_to_one_find(const struct nat *nat, const uint8_t *address, bool is_external)
{
	struct key key;
	int32_t slot;

	if (nat->pairs == NULL)
		return NULL;
	key_fill(&key, address, is_external);
	slot = onvm_flow_table_lookup(nat->pairs, &key);
	return slot < 0 ? NULL : onvm_flow_value(nat->pairs, slot);
}

enum nat_reason
nat_one_to_one_refuse(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *const ip = data + headers->l3_offset;

	if (nat_is_no_host(ip + 12) || nat_is_no_host(ip + 16))
		return NAT_DROP_UNROUTABLE;
	/* its checksum could not follow */
	if (headers->l4_status == ONVM_L4_SHORT || headers->l4_status == ONVM_L4_BAD_HEADER)
		return headers->more_fragments ? NAT_DROP_FRAGMENT : NAT_DROP_MALFORMED;
	return NAT_NO_DROP;
}

enum nat_reason
nat_one_to_one_translate(uint8_t *data, const struct onvm_headers *headers, enum onvm_side side,
			 const uint8_t *address)
{
	const uint8_t *const before = data + headers->l3_offset + (side == ONVM_SRC ? 12 : 16);
	struct onvm_embedded quoted;

	if (onvm_icmp_is_error(data, headers)) {
		/* of what it quotes, the other end is this one */
		const uint32_t end = side == ONVM_SRC ? 16 : 12;
		uint8_t port[2];

		if (!onvm_embedded_locate(data, headers, &quoted))
			return NAT_DROP_MALFORMED;
		if (memcmp(data + quoted.l3_offset + end, before, 4) == 0) {
			const uint32_t at = quoted.protocol == ONVM_PROTO_ICMP ? 4 :
					    side == ONVM_SRC		       ? 2 :
										 0;

			memcpy(port, data + quoted.l4_offset + at, sizeof(port));
			onvm_rewrite_embedded(data, headers, &quoted,
					      side == ONVM_SRC ? ONVM_DST : ONVM_SRC, address,
					      port);
		}
	}
	onvm_rewrite_end(data, headers, side, address, NULL);
	return NAT_NO_DROP;
}
