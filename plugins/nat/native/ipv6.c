/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What IPv6 packets there are: those for IPv4 hosts (NAT64), those whose prefix is translated
 * (NPTv6), and others.
 */

#include "nat.h"

/* An address of the packet that an ICMPv6 error quotes. The sum stays, so all checksums do. */
static enum nptv6_result
quoted_translate(const struct nat *nat, uint8_t *data, const struct onvm_headers *headers,
		 uint32_t offset, bool is_outward)
{
	uint8_t *const quoted = data + headers->l4_offset + 8;

	if (!onvm_icmp_is_error(data, headers) || headers->l4_length < 8 + 40)
		return NPTV6_OTHER;
	return nptv6_translate(nat->config.nptv6, nat->config.nb_nptv6, quoted + offset,
			       is_outward);
}

/* RFC 6296: one prefix becomes another. */
static enum nat_ipv6
prefix_translate(struct nat *nat, struct onvm_pkt *pkt, const struct onvm_headers *headers,
		 enum nat_reason *reason)
{
	const struct nptv6_pair *const pairs = nat->config.nptv6;
	const uint32_t nb = nat->config.nb_nptv6;
	const bool is_reverse = (pkt->flags & ONVM_F_REVERSE) != 0;
	uint8_t *const src = pkt->data + headers->l3_offset + 8, *const dst = src + 16;
	bool goes_in, is_lost = false;

	if (nb == 0 || headers->l3_status != ONVM_L3_OK)
		return NAT_IPV6_OTHER;
	goes_in = nptv6_holds(pairs, nb, dst, false);
	*reason = NAT_DROP_NO_MAPPING;
	if (!is_reverse &&
	    (!nptv6_holds(pairs, nb, src, true) || nptv6_holds(pairs, nb, dst, true)))
		return NAT_IPV6_OTHER;
	if (is_reverse && !goes_in)
		return nptv6_holds(pairs, nb, dst, true) ? NAT_IPV6_DROP : NAT_IPV6_OTHER;
	*reason = NAT_DROP_UNROUTABLE;
	if (!is_reverse) {
		is_lost = nptv6_translate(pairs, nb, src, true) == NPTV6_NOT_TRANSLATED ||
			  quoted_translate(nat, pkt->data, headers, 24, true) ==
				  NPTV6_NOT_TRANSLATED;
		nat->counters[NAT_TRANSLATED_OUT]++;
	}
	if (goes_in && !is_lost) {
		is_lost = nptv6_translate(pairs, nb, dst, false) == NPTV6_NOT_TRANSLATED ||
			  quoted_translate(nat, pkt->data, headers, 8, false) ==
				  NPTV6_NOT_TRANSLATED;
		nat->counters[is_reverse ? NAT_TRANSLATED_IN : NAT_HAIRPINNED]++;
	}
	if (is_lost)
		return NAT_IPV6_DROP;
	if (goes_in && !is_reverse)
		nat_send_inside(nat, pkt);
	return NAT_IPV6_DONE;
}

enum nat_ipv6
nat_ipv6_translate(struct nat *nat, struct onvm_pkt *pkt, struct onvm_headers *headers,
		   uint32_t *host, enum nat_reason *reason)
{
	if (nat->hosts == NULL || !nat64_is_outbound(nat, pkt, headers))
		return prefix_translate(nat, pkt, headers, reason);
	*reason = nat64_out(nat, pkt, headers, host);
	return *reason == NAT_NO_DROP ? NAT_IPV6_STAND_IN : NAT_IPV6_DROP;
}
