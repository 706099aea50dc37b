/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NSH_H_
#define _ONVM_NSH_H_

/**
 * @file
 * Network Service Header (RFC 8300) in VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe): how hosts of a
 * cluster send packets to each other. UDP to port 4790, VXLAN-GPE, NSH, the Ethernet frame.
 *
 * The service path identifier is the number of the chain in the cluster; its lowest bit is the
 * direction. The service index counts the services that are still to come, and the exit port as one
 * more, so it never falls to 0 on the way. The fixed context headers (MD type 1) name the NF hosts
 * of the path in forward order, 16 bits each. Where all are 0, the receiver chooses.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/checksum.h>

#define ONVM_VXLAN_GPE_PORT 4790
#define ONVM_VXLAN_BYTES 8
#define ONVM_NSH_BYTES 24 /**< with MD type 1 */
#define ONVM_TUNNEL_BYTES (ONVM_VXLAN_BYTES + ONVM_NSH_BYTES)
/** What a packet grows by on the wire: outer IPv4 or IPv6, UDP, and the above. */
#define ONVM_TUNNEL_OVERHEAD_V4 (20 + 8 + ONVM_TUNNEL_BYTES)
#define ONVM_NSH_TTL 63

#define ONVM_VXLAN_GPE_FLAGS 0x0c      /**< VNI valid, next protocol given; version 0 */
#define ONVM_VXLAN_GPE_FLAGS_MASK 0x3d /**< version, VNI, next protocol, OAM; not the reserved */
#define ONVM_VXLAN_GPE_OAM 0x01
#define ONVM_VXLAN_GPE_ETHERNET 3
#define ONVM_VXLAN_GPE_NSH 4
#define ONVM_NSH_MD1 1
#define ONVM_NSH_MD2 2
#define ONVM_NSH_ETHERNET 3

struct onvm_nsh {
	uint32_t chain; /**< number in the cluster */
	bool is_reverse;
	uint8_t si;
	uint8_t ttl;
	uint16_t length;     /**< bytes of VXLAN-GPE and NSH: where the frame begins */
	uint16_t numbers[8]; /**< of NF hosts; 0: not chosen */
};

/** Write VXLAN-GPE and NSH, ONVM_TUNNEL_BYTES. */
static inline void
onvm_nsh_write(uint8_t *data, uint32_t vni, const struct onvm_nsh *nsh)
{
	data[0] = ONVM_VXLAN_GPE_FLAGS;
	data[1] = data[2] = 0;
	data[3] = ONVM_VXLAN_GPE_NSH;
	onvm_store_be32(data + 4, vni << 8);
	/* Version 0, no OAM packet; six words; MD type 1; an Ethernet frame follows. */
	onvm_store_be32(data + 8, (uint32_t)(nsh->ttl & 63) << 22 | (ONVM_NSH_BYTES / 4u) << 16 |
					  ONVM_NSH_MD1 << 8 | ONVM_NSH_ETHERNET);
	onvm_store_be32(data + 12, (nsh->chain << 1 | nsh->is_reverse) << 8 | nsh->si);
	for (int i = 0; i < 8; i++)
		onvm_store_be16(data + 16 + 2 * i, nsh->numbers[i]);
}

/**
 * Read VXLAN-GPE and NSH.
 *
 * @return false: it is something else, cut short, or for another network than @p vni
 */
static inline bool
onvm_nsh_read(const uint8_t *data, uint32_t length, uint32_t vni, struct onvm_nsh *nsh)
{
	uint32_t base, path, md_type;

	if (length < ONVM_VXLAN_BYTES + 8 ||
	    (data[0] & ONVM_VXLAN_GPE_FLAGS_MASK) != ONVM_VXLAN_GPE_FLAGS ||
	    data[3] != ONVM_VXLAN_GPE_NSH || onvm_load_be32(data + 4) >> 8 != vni)
		return false;
	base = onvm_load_be32(data + 8);
	path = onvm_load_be32(data + 12);
	md_type = base >> 8 & 15;
	nsh->length = (uint16_t)(ONVM_VXLAN_BYTES + (base >> 16 & 63) * 4);
	/* Version 0 and no OAM packet; an Ethernet frame behind. */
	if (base >> 29 != 0 || (base & 255) != ONVM_NSH_ETHERNET || nsh->length > length)
		return false;
	if (md_type == ONVM_NSH_MD1 ? nsh->length != ONVM_TUNNEL_BYTES :
				      md_type != ONVM_NSH_MD2 || nsh->length < ONVM_VXLAN_BYTES + 8)
		return false;
	nsh->ttl = (uint8_t)(base >> 22 & 63);
	nsh->chain = path >> 9;
	nsh->is_reverse = (path >> 8 & 1) != 0;
	nsh->si = (uint8_t)path;
	memset(nsh->numbers, 0, sizeof(nsh->numbers));
	for (int i = 0; md_type == ONVM_NSH_MD1 && i < 8; i++)
		nsh->numbers[i] = onvm_load_be16(data + 16 + 2 * i);
	return true;
}

#endif /* _ONVM_NSH_H_ */
