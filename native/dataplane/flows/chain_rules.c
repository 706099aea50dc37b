/* SPDX-License-Identifier: Apache-2.0 */
#include "flows/chain_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <onvm/checksum.h>
#include <onvm/tables.h>

struct onvm_chain_rules {
	struct onvm_acl *ipv4, *ipv6; /**< NULL without rules of that version */
};

/** The rules of one IP version, or of both (0), as a table; 0 or -errno. */
static int
build(const struct onvm_dp_rule *rules, uint32_t nb, uint8_t ip_version, struct onvm_acl **acl)
{
	struct onvm_acl_rule *own = calloc(nb, sizeof(*own));
	uint32_t nb_own = 0;
	int rc = 0;

	if (own == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < nb; i++) {
		const struct onvm_dp_rule *rule = &rules[i];

		if (rule->ip_version != 0 && rule->ip_version != ip_version)
			continue;
		own[nb_own] = (struct onvm_acl_rule){
			.src_prefix = rule->src_prefix,
			.dst_prefix = rule->dst_prefix,
			.protocol = rule->protocol,
			.protocol_mask = rule->any_protocol ? 0 : 0xff,
			.src_port_first = rule->src_port_first,
			.src_port_last = rule->src_port_last,
			.dst_port_first = rule->dst_port_first,
			.dst_port_last = rule->dst_port_last,
			.priority = (int32_t)(nb - i),
			.value = rule->chain,
		};
		memcpy(own[nb_own].src, rule->src, sizeof(rule->src));
		memcpy(own[nb_own].dst, rule->dst, sizeof(rule->dst));
		nb_own++;
	}
	*acl = nb_own == 0 ? NULL : onvm_acl_create(ip_version, own, nb_own);
	if (nb_own != 0 && *acl == NULL)
		rc = -errno;
	free(own);
	return rc;
}

struct onvm_chain_rules *
onvm_chain_rules_create(const struct onvm_dp_rule *rules, uint32_t nb)
{
	struct onvm_chain_rules *made = calloc(1, sizeof(*made));
	int rc;

	if (made == NULL)
		return NULL;
	rc = build(rules, nb, 4, &made->ipv4);
	if (rc == 0)
		rc = build(rules, nb, 6, &made->ipv6);
	if (rc == 0)
		return made;
	onvm_chain_rules_free(made);
	errno = -rc;
	return NULL;
}

/** Only these have ports; the ports of ICMP's keys are identifiers. */
static bool
has_ports(uint8_t protocol)
{
	return protocol == ONVM_PROTO_TCP || protocol == ONVM_PROTO_UDP ||
	       protocol == ONVM_PROTO_SCTP;
}

uint16_t
onvm_chain_rules_find(const struct onvm_chain_rules *rules, enum onvm_flow_kind kind,
		      const union onvm_flow_key *key)
{
	const bool is_v4 = kind == ONVM_FLOW_KIND_IPV4;
	const struct onvm_acl *acl = is_v4 ? rules->ipv4 : rules->ipv6;
	struct onvm_tuple tuple = {.ip_version = is_v4 ? 4 : 6};
	uint32_t chain = 0;

	if (acl == NULL)
		return 0;
	if (is_v4) {
		memcpy(tuple.src, &key->v4.src, 4);
		memcpy(tuple.dst, &key->v4.dst, 4);
		tuple.protocol = key->v4.protocol;
	} else {
		memcpy(tuple.src, key->v6.src, sizeof(tuple.src));
		memcpy(tuple.dst, key->v6.dst, sizeof(tuple.dst));
		tuple.protocol = key->v6.protocol;
	}
	if (has_ports(tuple.protocol)) {
		onvm_store_be16(tuple.src_port, is_v4 ? key->v4.src_port : key->v6.src_port);
		onvm_store_be16(tuple.dst_port, is_v4 ? key->v4.dst_port : key->v6.dst_port);
	}
	return onvm_acl_lookup(acl, &tuple, &chain, 1) == 0 ? (uint16_t)chain : 0;
}

void
onvm_chain_rules_free(struct onvm_chain_rules *rules)
{
	if (rules == NULL)
		return;
	onvm_acl_free(rules->ipv4);
	onvm_acl_free(rules->ipv6);
	free(rules);
}
