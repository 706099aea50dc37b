/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NAT_SIIT_H_
#define _ONVM_NAT_SIIT_H_

/**
 * @file
 * The IP/ICMP translation algorithm (RFC 7915): the headers of one IP version become those of the
 * other. Who has which address is the caller's matter.
 *
 * A checksum that was wrong stays wrong, but for errors of ICMP, which must be right before. Sums of
 * fragments other than the first are not theirs. ICMP in fragments is not translated, as its sum
 * has a length in IPv6 that no fragment knows.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/icmp_error.h>
#include <onvm/nf.h>

/** A prefix that stands for IPv4 (RFC 6052): 32, 40, 48, 56, 64 or 96 bits. */
struct siit_prefix {
	uint8_t address[16];
	uint32_t bits; /**< 0: there is none */
};

/** What the addresses become: of the packet, and of the one that it quotes. The first 4 or all 16. */
struct siit_ends {
	uint8_t src[16], dst[16];
	uint8_t quoted_src[16], quoted_dst[16];
};

enum siit_result {
	SIIT_DONE,
	SIIT_NOT_TRANSLATED, /**< a kind of packet that has no counterpart */
	SIIT_MALFORMED,
	SIIT_FRAGMENT, /**< ICMP in fragments, UDP in fragments without a checksum */
	SIIT_NO_ROOM,  /**< the buffer is too small for the longer headers */
};

/** Whether an IPv6 address lies in the prefix. */
bool siit_prefix_holds(const struct siit_prefix *prefix, const uint8_t *address);
/** The IPv4 address within an IPv6 address of the prefix. */
void siit_extract(const struct siit_prefix *prefix, const uint8_t *address, uint8_t *ipv4);
/** The IPv6 address of the prefix that stands for an IPv4 address. */
void siit_embed(const struct siit_prefix *prefix, const uint8_t *ipv4, uint8_t *address);

/**
 * IPv6 to IPv4.
 *
 * @param headers   of the packet; its transport protocol is TCP, UDP or ICMPv6, or anything in a
 *                  fragment behind the first
 * @param hops      what the hop limit falls by
 * @param identification  of a packet that another host may cut
 * @return another than SIIT_DONE: nothing has changed
 */
enum siit_result siit_to4(struct onvm_pkt *pkt, const struct onvm_headers *headers,
			  const struct siit_ends *ends, uint8_t hops, uint16_t identification);
/** IPv4 to IPv6, likewise. */
enum siit_result siit_to6(struct onvm_pkt *pkt, const struct onvm_headers *headers,
			  const struct siit_ends *ends, uint8_t hops);

#endif /* _ONVM_NAT_SIIT_H_ */
