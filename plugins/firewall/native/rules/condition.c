/* SPDX-License-Identifier: Apache-2.0 */
#include "condition.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ANY_CODE 256u

/* A copy of @p nb elements; never NULL but without memory. */
static void *
copy_of(const void *from, uint32_t nb, size_t size)
{
	void *const made = calloc(nb + 1u, size);

	if (made != NULL && nb != 0)
		memcpy(made, from, nb * size);
	return made;
}

int
conditions_create(struct conditions *conditions, const struct firewall_config *config)
{
	conditions->nb = config->nb_conditions;
	conditions->nb_columns = config->nb_columns;
	conditions->all =
		copy_of(config->conditions, config->nb_conditions, sizeof(*conditions->all));
	conditions->pairs = copy_of(config->pairs, 2 * config->nb_pairs, sizeof(uint32_t));
	conditions->macs = copy_of(config->macs, config->nb_macs, 6);
	conditions->sets = calloc(config->nb_sets + 1u, sizeof(*conditions->sets));
	if (conditions->all == NULL || conditions->pairs == NULL || conditions->macs == NULL ||
	    conditions->sets == NULL)
		return -ENOMEM;
	for (; conditions->nb_sets < config->nb_sets; conditions->nb_sets++) {
		conditions->sets[conditions->nb_sets] =
			set_create(&config->sets[conditions->nb_sets]);
		if (conditions->sets[conditions->nb_sets] == NULL)
			return -ENOMEM;
	}
	if (config->nb_limits == 0)
		return 0;
	conditions->limits = limits_create(config);
	return conditions->limits == NULL ? -errno : 0;
}

void
conditions_free(struct conditions *conditions)
{
	for (uint32_t i = 0; i < conditions->nb_sets; i++)
		set_free(conditions->sets[i]);
	limits_free(conditions->limits);
	free(conditions->all);
	free(conditions->pairs);
	free(conditions->macs);
	free(conditions->sets);
	free(conditions->ports);
}

static bool
has_port(const struct conditions *conditions, uint32_t column, uint16_t port)
{
	return port < conditions->nb_ports &&
	       conditions->ports[port * conditions->nb_columns + column] != 0;
}

static bool
has_flags(const uint32_t *pairs, uint32_t nb, uint8_t flags)
{
	for (uint32_t i = 0; i < nb; i++)
		if ((flags & pairs[2 * i]) == pairs[2 * i + 1])
			return true;
	return false;
}

static bool
has_number(const uint32_t *pairs, uint32_t nb, uint32_t number)
{
	for (uint32_t i = 0; i < nb; i++)
		if (pairs[2 * i] <= number && number <= pairs[2 * i + 1])
			return true;
	return false;
}

static bool
has_mac(const uint8_t *macs, uint32_t nb, const uint8_t *address)
{
	for (uint32_t i = 0; i < nb; i++)
		if (memcmp(macs + 6 * (size_t)i, address, 6) == 0)
			return true;
	return false;
}

static bool
has_message(const uint32_t *pairs, uint32_t nb, const struct onvm_headers *headers,
	    const uint8_t *l4)
{
	for (uint32_t i = 0; i < nb; i++)
		if (pairs[2 * i] == headers->ip_version * 256u + l4[0] &&
		    (pairs[2 * i + 1] == ANY_CODE || pairs[2 * i + 1] == l4[1]))
			return true;
	return false;
}

static bool
is_icmp(const struct onvm_headers *headers)
{
	return headers->l4_status == ONVM_L4_OK &&
	       headers->protocol ==
		       (headers->ip_version == 4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6);
}

static uint32_t
cast_of(const uint8_t *address)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (memcmp(address, broadcast, 6) == 0)
		return 4;
	return (address[0] & 1) != 0 ? 2 : 1;
}

/* Whether a later fragment does not show what is asked for. */
static bool
asks_transport(uint8_t question)
{
	return question == FIREWALL_ASK_FLAGS || question == FIREWALL_ASK_ICMP ||
	       question == FIREWALL_ASK_STATE || question == FIREWALL_ASK_LIMIT;
}

static bool
is_met(struct conditions *conditions, const struct firewall_condition *condition,
       const struct question *question)
{
	const struct onvm_headers *const headers = question->headers;
	const uint8_t *const data = question->pkt->data;
	const uint8_t *const ends = data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8);
	const uint32_t *const pairs = conditions->pairs + 2 * (size_t)condition->a;
	const bool inverts = condition->is_negated != 0;

	if (question->is_fragment && asks_transport(condition->question))
		return true; /* as far as can be seen */
	switch ((enum firewall_question)condition->question) {
	case FIREWALL_ASK_PORT:
		return has_port(conditions, condition->a, question->pkt->port);
	case FIREWALL_ASK_SET:
		return set_has(conditions->sets[condition->a], headers->ip_version,
			       condition->b == 0 ? ends :
						   ends + onvm_address_bytes(headers->ip_version));
	case FIREWALL_ASK_FLAGS:
		return has_flags(pairs, condition->b, headers->tcp_flags) != inverts;
	case FIREWALL_ASK_ICMP:
		return is_icmp(headers) && has_message(pairs, condition->b, headers,
						       data + headers->l4_offset) != inverts;
	case FIREWALL_ASK_STATE:
		return (condition->a & question->state) != 0;
	case FIREWALL_ASK_VLAN:
		return has_number(pairs, condition->b,
				  headers->nb_vlans == 0 ? 0 : headers->vlan_tci[0] & 0xfff);
	case FIREWALL_ASK_MAC:
		return has_mac(conditions->macs + 6 * (size_t)condition->a, condition->b,
			       data + 6) != inverts;
	case FIREWALL_ASK_CAST:
		return (condition->a & cast_of(data)) != 0;
	case FIREWALL_ASK_FRAGMENT:
		return (condition->a != 0) == question->is_fragment;
	case FIREWALL_ASK_LIMIT:
		return limits_match(conditions->limits, condition->a, headers->ip_version, ends,
				    question->now_ns);
	}
	return false;
}

bool
conditions_meet(struct conditions *conditions, const struct firewall_entry *entry,
		const struct question *question)
{
	const struct firewall_condition *const first = conditions->all + entry->first_condition;

	for (uint32_t i = 0; i < entry->nb_conditions; i++)
		if (!is_met(conditions, &first[i], question))
			return false;
	return true;
}
