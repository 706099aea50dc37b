/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "matching.h"

static bool
names_ports(const struct onvm_acl_rule *rule)
{
	return rule->src_port_first != 0 || rule->src_port_last != UINT16_MAX ||
	       rule->dst_port_first != 0 || rule->dst_port_last != UINT16_MAX;
}

/*
 * Rules for later fragments: those without ports as they are. One with ports that would accept is a
 * chance, which counts if nothing else matches and the default drops.
 */
static bool
convert_for_fragments(const struct firewall_rules *rules, const struct firewall_config *config,
		      struct onvm_acl_rule *rule)
{
	if (!names_ports(rule)) {
		rule->priority++;
		return true;
	}
	rule->src_port_first = rule->dst_port_first = 0;
	rule->src_port_last = rule->dst_port_last = UINT16_MAX;
	rule->priority = 1;
	if (config->default_accepts || rules->entries[rule->value - 1].action != FIREWALL_ACCEPT)
		return false;
	rule->value = rules_value_of_chance(rules);
	return true;
}

/* Build the table of an IP version and a side; NULL if it has no rules. */
static int
table_create(const struct firewall_rules *rules, const struct firewall_config *config, bool is_ipv6,
	     uint32_t far, bool is_for_fragments, struct onvm_acl **acl)
{
	const struct onvm_acl_rule *const given = is_ipv6 ? config->rules6 : config->rules4;
	const uint32_t nb_given = is_ipv6 ? config->nb_rules6 : config->nb_rules4;
	struct onvm_acl_rule *chosen = calloc(nb_given + 1, sizeof(*chosen));
	uint32_t nb = 0;
	int rc = 0;

	if (chosen == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < nb_given; i++) {
		const uint8_t side = rules->entries[given[i].value - 1].side;

		if (side != FIREWALL_SIDE_ANY && side != FIREWALL_SIDE_NEAR + far)
			continue;
		chosen[nb] = given[i];
		if (!is_for_fragments || convert_for_fragments(rules, config, &chosen[nb]))
			nb++;
	}
	if (nb != 0) {
		*acl = onvm_acl_create(is_ipv6 ? 6 : 4, chosen, nb);
		rc = *acl == NULL ? -errno : 0;
	}
	free(chosen);
	return rc;
}

static void
note_features(struct firewall_rules *rules, const struct firewall_config *config)
{
	for (uint32_t i = 0; i < config->nb_rules4; i++)
		rules->has_sides |= rules->entries[config->rules4[i].value - 1].side != 0;
	for (uint32_t i = 0; i < config->nb_rules6; i++)
		rules->has_sides |= rules->entries[config->rules6[i].value - 1].side != 0;
	for (uint32_t i = 0; i < config->nb_rules4; i++)
		rules->has_ports |= names_ports(&config->rules4[i]);
	for (uint32_t i = 0; i < config->nb_rules6; i++)
		rules->has_ports |= names_ports(&config->rules6[i]);
}

int
rules_create(struct firewall_rules *rules, const struct firewall_config *config)
{
	int rc = 0;

	rules->nb = config->nb_entries;
	rules->entries = calloc(rules->nb + 1, sizeof(*rules->entries));
	rules->hits = calloc(config->nb_rules + 1, sizeof(*rules->hits));
	if (rules->entries == NULL || rules->hits == NULL)
		return -ENOMEM;
	if (rules->nb != 0)
		memcpy(rules->entries, config->entries, rules->nb * sizeof(*rules->entries));
	note_features(rules, config);
	if (config->nb_conditional != 0)
		rc = matching_create(config, &rules->matching);
	for (uint32_t ipv6 = 0; ipv6 < 2; ipv6++) {
		for (uint32_t far = 0; far < 2 && rc == 0; far++) {
			if (far != 0 && !rules->has_sides) {
				rules->whole[ipv6][1] = rules->whole[ipv6][0];
				rules->fragments[ipv6][1] = rules->fragments[ipv6][0];
				break;
			}
			rc = table_create(rules, config, ipv6, far, false,
					  &rules->whole[ipv6][far]);
			if (rc == 0 && rules->has_ports)
				rc = table_create(rules, config, ipv6, far, true,
						  &rules->fragments[ipv6][far]);
			else
				rules->fragments[ipv6][far] = rules->whole[ipv6][far];
		}
	}
	return rc;
}

void
rules_free(struct firewall_rules *rules)
{
	for (uint32_t ipv6 = 0; ipv6 < 2; ipv6++) {
		for (uint32_t far = 0; far < 2; far++) {
			if (far != 0 && !rules->has_sides)
				break;
			if (rules->fragments[ipv6][far] != rules->whole[ipv6][far])
				onvm_acl_free(rules->fragments[ipv6][far]);
			onvm_acl_free(rules->whole[ipv6][far]);
		}
	}
	matching_free(rules->matching);
	free(rules->entries);
	free(rules->hits);
}
