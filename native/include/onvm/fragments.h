/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FRAGMENTS_H_
#define _ONVM_FRAGMENTS_H_

/**
 * @file
 * Cutting an IP packet into fragments (RFC 791 section 3.2, RFC 8200 section 4.5).
 *
 * First a plan is made, then the fragments are written, one after the other, to wherever the caller has
 * room for them:
 *
 * 	for (uint32_t next = plan.header; next < plan.end; next += plan.piece)
 * 		length = onvm_fragment_write(&plan, data, next, place);
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/checksum.h>
#include <onvm/parse.h>

#define ONVM_FRAGMENT_HEADER 8 /* bytes of the one of IPv6 */

/** How a packet is cut. Offsets count from the first byte of the frame. */
struct onvm_fragment_plan {
	uint16_t l3;	 /**< of the IP header */
	uint16_t header; /**< of what is cut: the bytes before it are in each fragment */
	uint16_t piece;	 /**< bytes of payload of each fragment but the last; a multiple of 8 */
	uint16_t name;	 /**< IPv6: of the byte that is to name the fragment header */
	uint32_t end;	 /**< of the packet; padding may follow */
	uint32_t id; /**< identification of all fragments; IPv4: 0: as it stands in the packet */
	uint8_t ip_version;
};

/**
 * Bytes of the headers that each fragment of IPv6 has: up to the last routing header, else up to the
 * hop-by-hop header. @p name gets the offset of the byte that names what follows them.
 */
static inline uint32_t
onvm_fragment_headers6(const uint8_t *ip, uint32_t length, uint32_t *name)
{
	uint32_t at = 40, nb = 40, last = 6;

	*name = 6;
	while (at + 8 <= length &&
	       (ip[last] == ONVM_PROTO_HOPOPTS || ip[last] == ONVM_PROTO_ROUTING ||
		ip[last] == ONVM_PROTO_DSTOPTS)) {
		const bool is_repeated = ip[last] != ONVM_PROTO_DSTOPTS;
		const uint32_t bytes = onvm_ipv6_extension_bytes(ip[last], ip + at);

		if (at + bytes > length)
			break;
		last = at;
		at += bytes;
		if (is_repeated) {
			nb = at;
			*name = last;
		}
	}
	return nb;
}

/**
 * Plan to cut a packet into fragments of at most @p most bytes, from the IP header on.
 *
 * @param headers  of the packet: ONVM_L3_OK
 * @param id       a random identification, for packets that have none
 * @return false: it is small enough; or it cannot be cut, because its headers alone are too long, or
 * as a fragment of IPv6
 */
static inline bool
onvm_fragment_plan(const uint8_t *data, const struct onvm_headers *headers, uint32_t most,
		   uint32_t id, struct onvm_fragment_plan *plan)
{
	const uint8_t *const ip = data + headers->l3_offset;
	uint32_t nb_headers, length, added = 0, name = 0;

	if (headers->ip_version == 4) {
		nb_headers = (ip[0] & 15) * 4u;
		length = onvm_load_be16(ip + 2);
		id = ip[4] == 0 && ip[5] == 0 ? id & 0xffff : 0;
	} else {
		if (headers->fragment_header != 0)
			return false;
		length = 40u + onvm_load_be16(ip + 4);
		nb_headers = onvm_fragment_headers6(ip, length, &name);
		added = ONVM_FRAGMENT_HEADER;
	}
	if (length <= most || most < nb_headers + added + 8)
		return false;
	*plan = (struct onvm_fragment_plan){
		.l3 = headers->l3_offset,
		.header = (uint16_t)(headers->l3_offset + nb_headers),
		.piece = (uint16_t)((most - nb_headers - added) & ~7u),
		.name = (uint16_t)(headers->l3_offset + name),
		.end = headers->l3_offset + length,
		.id = id,
		.ip_version = headers->ip_version,
	};
	return true;
}

/** Bytes of the largest fragment's frame. */
static inline uint32_t
onvm_fragment_bytes(const struct onvm_fragment_plan *plan)
{
	return (uint32_t)plan->header + (plan->ip_version == 6 ? ONVM_FRAGMENT_HEADER : 0) +
	       plan->piece;
}

/** RFC 791 section 3.1: options without the "copied" bit are in the first fragment only. */
static inline void
onvm_fragment_blank_options(uint8_t *ip, uint32_t nb_headers)
{
	for (uint32_t at = 20; at < nb_headers && ip[at] != 0;) {
		const uint32_t bytes = ip[at] == 1 || at + 1 == nb_headers ? 1 : ip[at + 1];

		if (bytes == 0 || at + bytes > nb_headers)
			return;
		if ((ip[at] & 0x80) == 0)
			memset(ip + at, 1, bytes);
		at += bytes;
	}
}

/** Let the header of IPv4 say which fragment follows; a wrong checksum stays wrong. */
static inline void
onvm_fragment_write4(const struct onvm_fragment_plan *plan, uint8_t *ip, uint32_t at,
		     uint32_t nb_bytes, bool is_last)
{
	const uint32_t nb_headers = (uint32_t)plan->header - plan->l3;
	uint8_t before[60];

	memcpy(before, ip, nb_headers);
	onvm_store_be16(ip + 2, (uint16_t)(nb_headers + nb_bytes));
	if (plan->id != 0)
		onvm_store_be16(ip + 4, (uint16_t)plan->id);
	onvm_store_be16(ip + 6,
			(uint16_t)((onvm_load_be16(ip + 6) + at / 8) | (is_last ? 0 : 0x2000)));
	if (at != 0)
		onvm_fragment_blank_options(ip, nb_headers);
	onvm_checksum_replace(ip + 10, before, ip, 10);
	onvm_checksum_replace(ip + 10, before + 12, ip + 12, nb_headers - 12);
}

/**
 * Write the fragment that begins with byte @p next of the packet.
 *
 * @param data   the packet
 * @param place  for the frame: onvm_fragment_bytes()
 * @return bytes of the frame
 */
static inline uint32_t
onvm_fragment_write(const struct onvm_fragment_plan *plan, const uint8_t *data, uint32_t next,
		    uint8_t *place)
{
	const uint32_t left = plan->end - next, at = next - plan->header;
	const uint32_t nb_bytes = left < plan->piece ? left : plan->piece;
	const bool is_last = nb_bytes == left;
	uint8_t *const ip = place + plan->l3, *const own = place + plan->header;

	memcpy(place, data, plan->header);
	if (plan->ip_version == 4) {
		onvm_fragment_write4(plan, ip, at, nb_bytes, is_last);
		memcpy(own, data + next, nb_bytes);
		return plan->header + nb_bytes;
	}
	onvm_store_be16(ip + 4, (uint16_t)(plan->header - (uint32_t)plan->l3 - 40 +
					   ONVM_FRAGMENT_HEADER + nb_bytes));
	own[0] = place[plan->name];
	own[1] = 0;
	onvm_store_be16(own + 2, (uint16_t)(at | !is_last));
	onvm_store_be32(own + 4, plan->id);
	place[plan->name] = ONVM_PROTO_FRAGMENT;
	memcpy(own + ONVM_FRAGMENT_HEADER, data + next, nb_bytes);
	return plan->header + ONVM_FRAGMENT_HEADER + nb_bytes;
}

#endif /* _ONVM_FRAGMENTS_H_ */
