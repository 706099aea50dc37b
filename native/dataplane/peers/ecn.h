/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ECN_H_
#define _ONVM_ECN_H_

/**
 * @file
 * Type of service over a tunnel. The outer header takes DSCP and ECN of the inner one. At the far
 * end the congestion marks of the outer header are carried over (RFC 6040, normal mode); the inner
 * DSCP stays as it was (RFC 2983, pipe model).
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/parse.h>
#include <onvm/rewrite.h>

#define ONVM_ECN_MASK 3
#define ONVM_ECN_NOT_ECT 0
#define ONVM_ECN_ECT1 1
#define ONVM_ECN_ECT0 2
#define ONVM_ECN_CE 3

/** Where the IP header of a frame is; 0: it is no IP, or cut short. */
static inline uint32_t
onvm_ecn_l3(const uint8_t *frame, uint32_t length, uint8_t *ip_version)
{
	uint32_t offset = 12;

	while (offset + 2 + 20 <= length) {
		const uint16_t ethertype = onvm_load_be16(frame + offset);

		if (ethertype == ONVM_ETHERTYPE_IPV4 || ethertype == ONVM_ETHERTYPE_IPV6) {
			*ip_version = frame[offset + 2] >> 4;
			return *ip_version == (ethertype == ONVM_ETHERTYPE_IPV4 ? 4 : 6) ?
				       offset + 2 :
				       0;
		}
		if (!onvm_ethertype_is_vlan(ethertype))
			return 0;
		offset += 4;
	}
	return 0;
}

/** DSCP and ECN of a frame; 0 when it is no IP. */
static inline uint8_t
onvm_ecn_tos(const uint8_t *frame, uint32_t length)
{
	uint8_t ip_version;
	const uint32_t l3 = onvm_ecn_l3(frame, length, &ip_version);

	if (l3 == 0)
		return 0;
	return ip_version == 4 ? frame[l3 + 1] : (uint8_t)(frame[l3] << 4 | frame[l3 + 1] >> 4);
}

static inline void
onvm_ecn_set(uint8_t *l3, uint8_t ip_version, uint8_t ecn)
{
	uint8_t before[2];

	if (ip_version == 6) {
		l3[1] = (uint8_t)((l3[1] & ~(ONVM_ECN_MASK << 4)) | ecn << 4);
		return;
	}
	memcpy(before, l3, sizeof(before));
	l3[1] = (uint8_t)((l3[1] & ~ONVM_ECN_MASK) | ecn);
	onvm_checksum_apply(l3 + 10, onvm_checksum_delta(0, before, l3, sizeof(before)));
}

/**
 * Take over what the tunnel's outer header says of congestion.
 *
 * @return false: congestion was met by a packet whose ends do not understand marks; it is dropped
 */
static inline bool
onvm_ecn_decapsulate(uint8_t *frame, uint32_t length, uint8_t outer_tos)
{
	const uint8_t outer = outer_tos & ONVM_ECN_MASK;
	uint8_t ip_version, inner;
	uint32_t l3;

	if (outer == ONVM_ECN_NOT_ECT || outer == ONVM_ECN_ECT0)
		return true;
	l3 = onvm_ecn_l3(frame, length, &ip_version);
	if (l3 == 0)
		return true;
	inner = onvm_ecn_tos(frame, length) & ONVM_ECN_MASK;
	if (inner == ONVM_ECN_NOT_ECT)
		return outer != ONVM_ECN_CE;
	if (outer == ONVM_ECN_CE && inner != ONVM_ECN_CE)
		onvm_ecn_set(frame + l3, ip_version, ONVM_ECN_CE);
	else if (outer == ONVM_ECN_ECT1 && inner == ONVM_ECN_ECT0)
		onvm_ecn_set(frame + l3, ip_version, ONVM_ECN_ECT1);
	return true;
}

#endif /* _ONVM_ECN_H_ */
