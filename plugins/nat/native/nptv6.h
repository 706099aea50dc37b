/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NAT_NPTV6_H_
#define _ONVM_NAT_NPTV6_H_

/**
 * @file
 * IPv6-to-IPv6 network prefix translation (RFC 6296): an inside prefix and an outside one of the same
 * length. One word of the address makes up for the difference, so that no checksum changes.
 */

#include <stdbool.h>
#include <stdint.h>

#define NPTV6_PREFIXES_MAX 16

struct nptv6_pair {
	uint8_t inside[16], outside[16]; /**< bits behind the prefix are zero */
	uint32_t bits;			 /**< 1..112 */
};

enum nptv6_result {
	NPTV6_DONE,
	NPTV6_OTHER,	      /**< the address lies in no prefix */
	NPTV6_NOT_TRANSLATED, /**< it has no word that can make up for the difference (RFC 6296 3.5) */
};

/** Whether an address lies in the inside prefix, or the outside one, of a pair. */
bool
nptv6_holds(const struct nptv6_pair *pairs, uint32_t nb, const uint8_t *address, bool is_inside);
/**
 * Translate an address in place.
 *
 * @param is_outward  from its inside prefix to the outside one, or the other way
 */
enum nptv6_result
nptv6_translate(const struct nptv6_pair *pairs, uint32_t nb, uint8_t *address, bool is_outward);

#endif /* _ONVM_NAT_NPTV6_H_ */
