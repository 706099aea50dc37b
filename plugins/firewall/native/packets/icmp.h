/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_ICMP_H_
#define _ONVM_FIREWALL_ICMP_H_

/** @file What an ICMP or ICMPv6 message is to a firewall. */

#include <onvm/icmp_error.h>

enum icmp_kind {
	ICMP_KIND_NONE, /**< not ICMP of its IP version */
	ICMP_KIND_QUERY,
	ICMP_KIND_REPLY,
	ICMP_KIND_ERROR,
	ICMP_KIND_SINGLE, /**< a message of its own, which rules may let pass */
	ICMP_KIND_OTHER,
};

/** @param type  the message's; @param query  gets the type of the query that it is or answers */
static inline enum icmp_kind
icmp_kind_of(uint8_t ip_version, uint8_t protocol, uint8_t type, uint8_t *query)
{
	*query = type;
	if (ip_version == 4 && protocol == ONVM_PROTO_ICMP) {
		switch (type) {
		case 8:	 /* echo */
		case 13: /* timestamp */
		case 15: /* information */
		case 17: /* address mask */
			return ICMP_KIND_QUERY;
		case 0:
			*query = 8;
			return ICMP_KIND_REPLY;
		case 14:
		case 16:
		case 18:
			*query = type - 1;
			return ICMP_KIND_REPLY;
		case 3:
		case 4:
		case 11:
		case 12:
			return ICMP_KIND_ERROR;
		case 5: /* redirect */
			return ICMP_KIND_SINGLE;
		default:
			return ICMP_KIND_OTHER;
		}
	}
	if (ip_version != 6 || protocol != ONVM_PROTO_ICMPV6)
		return ICMP_KIND_NONE;
	switch (type) {
	case 128:
		return ICMP_KIND_QUERY;
	case 129:
		*query = 128;
		return ICMP_KIND_REPLY;
	case 1:
	case 2:
	case 3:
	case 4:
		return ICMP_KIND_ERROR;
	case 137: /* redirect */
	case 144: /* mobile IPv6 (RFC 4890 4.3.2) */
	case 145:
	case 146:
	case 147:
		return ICMP_KIND_SINGLE;
	default:
		return ICMP_KIND_OTHER;
	}
}

/** Neighbour and multicast listener discovery (RFC 4890 4.4.1); no node takes it in fragments. */
static inline bool
icmp_is_ndp(const uint8_t *data, const struct onvm_headers *headers)
{
	if (headers->ip_version != 6 || headers->protocol != ONVM_PROTO_ICMPV6 ||
	    headers->l4_status != ONVM_L4_OK || onvm_headers_is_fragment(headers))
		return false;
	switch (data[headers->l4_offset]) {
	case 130:
	case 131:
	case 132:
	case 133:
	case 134:
	case 135:
	case 136:
	case 141:
	case 142:
	case 143:
	case 148:
	case 149:
	case 151:
	case 152:
	case 153:
		return true;
	default:
		return false;
	}
}

#endif /* _ONVM_FIREWALL_ICMP_H_ */
