/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_RULES_H_
#define _ONVM_FIREWALL_RULES_H_

/** @file The rules as ACL: one per IP version, and per side if any rule names one. */

#include "../firewall.h"

int rules_create(struct firewall_rules *rules, const struct firewall_config *config);
void rules_free(struct firewall_rules *rules);

/** The value of a rule that accepts, if its ports match, a fragment whose ports are not known. */
static inline uint32_t
rules_value_of_chance(const struct firewall_rules *rules)
{
	return rules->nb + 1;
}

/** Fill what the ACL of an IP version reads; @p src is followed by the destination. */
static inline void
rules_tuple_fill(struct onvm_tuple *tuple, uint8_t ip_version, uint8_t protocol, const uint8_t *src,
		 uint16_t src_port, uint16_t dst_port)
{
	const uint32_t size = onvm_address_bytes(ip_version);

	tuple->protocol = protocol;
	tuple->ip_version = ip_version;
	__builtin_memcpy(tuple->src, src, size);
	__builtin_memcpy(tuple->dst, src + size, size);
	tuple->src_port[0] = (uint8_t)(src_port >> 8);
	tuple->src_port[1] = (uint8_t)src_port;
	tuple->dst_port[0] = (uint8_t)(dst_port >> 8);
	tuple->dst_port[1] = (uint8_t)dst_port;
}

#endif /* _ONVM_FIREWALL_RULES_H_ */
