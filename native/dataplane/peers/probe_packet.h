/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PROBE_PACKET_H_
#define _ONVM_PROBE_PACKET_H_

/**
 * @file
 * A probe on the wire: BFD within the tunnel (RFC 8971), so that what stops packets stops it.
 *
 * ```
 *  VXLAN-GPE (OAM) | Ethernet | IPv4 | UDP 3784 | BFD | keys (48 bytes) | tag (16) | padding
 * ```
 *
 * The inner IP packet goes from a loopback address to one, with a TTL of 255 (GTSM, RFC 5082), and
 * is never forwarded. Behind BFD's own 24 bytes stand what the sender says of keys (agreement.h),
 * and for how long it has received no probe of full size. The tag is an HMAC under the secret of both
 * hosts, over their addresses and all before it: the addresses, so that no host hears itself.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/checksum.h>

#include "peers/bfd.h"
#include "peers/nsh.h"
#include "peers/probe_box.h"
#include "peers/security/agreement.h"

#define ONVM_PROBE_IP (ONVM_VXLAN_BYTES + 14)
#define ONVM_PROBE_UDP (ONVM_PROBE_IP + 20)
#define ONVM_PROBE_BFD (ONVM_PROBE_UDP + 8)
#define ONVM_PROBE_KEYS (ONVM_PROBE_BFD + ONVM_BFD_BYTES)
#define ONVM_PROBE_TAG (ONVM_PROBE_KEYS + 48)
#define ONVM_PROBE_TAG_BYTES 16
#define ONVM_PROBE_TTL 255
#define ONVM_PROBE_SOURCE_PORT 49152
#define ONVM_PROBE_MAGIC 0x6f6e7631u /**< "onv1" */
/** No probe of full size for so long or longer, or none ever. */
#define ONVM_PROBE_UNHEARD_MS UINT16_MAX

static_assert(ONVM_PROBE_TAG + ONVM_PROBE_TAG_BYTES == ONVM_PROBE_BYTES, "nothing behind the tag");

/** Addresses that the tag covers, ONVM_ADDRESS_BYTES each; IPv4 as in ::ffff:0:0/96. */
struct onvm_probe_ends {
	uint8_t from[16], to[16];
};

struct onvm_probe {
	struct onvm_agreement_message keys;
	uint16_t unheard_ms; /**< since the sender got a probe of full size */
};

/** Whether a datagram is a probe, or pretends to be one. */
static inline bool
onvm_probe_is_one(const uint8_t *data, uint32_t length)
{
	return length >= ONVM_VXLAN_BYTES && (data[0] & ONVM_VXLAN_GPE_OAM) != 0;
}

/** Write a probe but for its tag: ONVM_PROBE_BYTES, and zeros up to @p length. */
static inline void
onvm_probe_write(uint8_t *data, uint32_t length, uint32_t vni, const struct onvm_bfd *session,
		 const struct onvm_probe *probe)
{
	static const uint8_t ethernet[14] = {0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0x00};
	const uint16_t ip_bytes = (uint16_t)(length - ONVM_PROBE_IP);
	uint8_t *ip = data + ONVM_PROBE_IP, *udp = data + ONVM_PROBE_UDP;
	uint8_t *keys = data + ONVM_PROBE_KEYS;
	uint16_t checksum;

	memset(data, 0, length);
	data[0] = ONVM_VXLAN_GPE_FLAGS | ONVM_VXLAN_GPE_OAM;
	data[3] = ONVM_VXLAN_GPE_ETHERNET;
	onvm_store_be32(data + 4, vni << 8);
	memcpy(data + ONVM_VXLAN_BYTES, ethernet, sizeof(ethernet));
	ip[0] = 0x45;
	onvm_store_be16(ip + 2, ip_bytes);
	ip[8] = ONVM_PROBE_TTL;
	ip[9] = 17;
	ip[12] = ip[16] = 127;
	ip[15] = 1;
	ip[19] = 2;
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, 20));
	memcpy(ip + 10, &checksum, sizeof(checksum));
	onvm_store_be16(udp, ONVM_PROBE_SOURCE_PORT);
	onvm_store_be16(udp + 2, ONVM_BFD_PORT);
	onvm_store_be16(udp + 4,
			(uint16_t)(ip_bytes - 20)); /* without a checksum: the tag is one */
	onvm_bfd_write(session, data + ONVM_PROBE_BFD);
	onvm_store_be32(keys, ONVM_PROBE_MAGIC);
	onvm_store_be32(keys + 4, (uint32_t)(probe->keys.sequence >> 32));
	onvm_store_be32(keys + 8, (uint32_t)probe->keys.sequence);
	memcpy(keys + 12, probe->keys.nonce, ONVM_NONCE_BYTES);
	memcpy(keys + 28, probe->keys.heard, ONVM_NONCE_BYTES);
	keys[44] = probe->keys.key;
	onvm_store_be16(keys + 46, probe->unheard_ms);
}

/** Read a probe of ONVM_PROBE_BYTES at least; false: it is none, or of another network. */
static inline bool
onvm_probe_read(const uint8_t *data, uint32_t length, uint32_t vni, struct onvm_probe *probe)
{
	const uint8_t *ip = data + ONVM_PROBE_IP, *udp = data + ONVM_PROBE_UDP;
	const uint8_t *keys = data + ONVM_PROBE_KEYS;

	if (length < ONVM_PROBE_BYTES || data[3] != ONVM_VXLAN_GPE_ETHERNET ||
	    (data[0] & ONVM_VXLAN_GPE_FLAGS_MASK) != (ONVM_VXLAN_GPE_FLAGS | ONVM_VXLAN_GPE_OAM) ||
	    onvm_load_be32(data + 4) >> 8 != vni || onvm_load_be16(ip - 2) != 0x0800 ||
	    ip[0] != 0x45 || ip[8] != ONVM_PROBE_TTL || ip[9] != 17 || ip[16] != 127 ||
	    onvm_load_be16(udp + 2) != ONVM_BFD_PORT || onvm_load_be32(keys) != ONVM_PROBE_MAGIC)
		return false;
	probe->keys.sequence = (uint64_t)onvm_load_be32(keys + 4) << 32 | onvm_load_be32(keys + 8);
	memcpy(probe->keys.nonce, keys + 12, ONVM_NONCE_BYTES);
	memcpy(probe->keys.heard, keys + 28, ONVM_NONCE_BYTES);
	probe->keys.key = keys[44];
	probe->unheard_ms = onvm_load_be16(keys + 46);
	return true;
}

/** The tag of a probe, ONVM_HMAC_BYTES of which the first ONVM_PROBE_TAG_BYTES are sent. */
static inline void
onvm_probe_tag(const uint8_t *secret, const struct onvm_probe_ends *ends, const uint8_t *data,
	       uint8_t *tag)
{
	uint8_t covered[sizeof(*ends) + ONVM_PROBE_TAG];

	memcpy(covered, ends, sizeof(*ends));
	memcpy(covered + sizeof(*ends), data, ONVM_PROBE_TAG);
	onvm_hmac(secret, covered, sizeof(covered), tag);
}

/** Whether the tag of a probe is right. */
static inline bool
onvm_probe_is_genuine(const uint8_t *secret, const struct onvm_probe_ends *ends,
		      const uint8_t *data)
{
	uint8_t tag[ONVM_HMAC_BYTES];

	onvm_probe_tag(secret, ends, data, tag);
	return onvm_tags_are_equal(tag, data + ONVM_PROBE_TAG, ONVM_PROBE_TAG_BYTES);
}

#endif /* _ONVM_PROBE_PACKET_H_ */
