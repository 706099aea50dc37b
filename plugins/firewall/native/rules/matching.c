/* SPDX-License-Identifier: Apache-2.0 */
#include "matching.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "event.h"

struct matching {
	struct conditions conditions;
	struct bits_field fields[2][FIREWALL_FIELDS]; /* by IPv6 */
	uint32_t *places; /* by position: that of the entry in the list */
	uint32_t nb, nb_words;
	bool asks_state;
};

int
matching_create(const struct firewall_config *config, struct matching **made)
{
	struct matching *const matching = calloc(1, sizeof(*matching));
	int rc;

	if (matching == NULL)
		return -ENOMEM;
	*made = matching;
	matching->nb = config->nb_conditional;
	matching->nb_words = (matching->nb + 63) / 64;
	matching->places = calloc(matching->nb, sizeof(*matching->places));
	if (matching->places == NULL)
		return -ENOMEM;
	memcpy(matching->places, config->conditional, matching->nb * sizeof(*matching->places));
	for (uint32_t i = 0; i < config->nb_conditions; i++)
		matching->asks_state |= config->conditions[i].question == FIREWALL_ASK_STATE;
	rc = conditions_create(&matching->conditions, config);
	for (uint32_t ipv6 = 0; ipv6 < 2; ipv6++)
		for (uint32_t field = 0; field < FIREWALL_FIELDS && rc == 0; field++)
			rc = bits_create(&matching->fields[ipv6][field], config, field,
					 ipv6 != 0 ? 6 : 4, matching->nb_words);
	return rc;
}

void
matching_free(struct matching *matching)
{
	if (matching == NULL)
		return;
	for (uint32_t ipv6 = 0; ipv6 < 2; ipv6++)
		for (uint32_t field = 0; field < FIREWALL_FIELDS; field++)
			bits_free(&matching->fields[ipv6][field]);
	conditions_free(&matching->conditions);
	free(matching->places);
	free(matching);
}

int
matching_bind_ports(struct matching *matching, const uint8_t *table, uint32_t nb_ports)
{
	const uint32_t bytes = nb_ports * matching->conditions.nb_columns;
	uint8_t *const copy = calloc(bytes + 1u, 1);

	if (copy == NULL)
		return -ENOMEM;
	if (bytes != 0)
		memcpy(copy, table, bytes);
	free(matching->conditions.ports);
	matching->conditions.ports = copy;
	matching->conditions.nb_ports = nb_ports;
	return 0;
}

bool
matching_asks_state(const struct matching *matching)
{
	return matching->asks_state;
}

uint32_t
matching_size(const struct matching *matching)
{
	return matching->nb;
}

static bits_number
number_of(uint8_t ip_version, const uint8_t *address)
{
	bits_number number = 0;

	for (uint32_t i = 0; i < onvm_address_bytes(ip_version); i += 4)
		number = number << 32 | onvm_load_be32(address + i);
	return number;
}

/* What an entry that matches does; @return whether it has a verdict. */
static bool
carry_out(struct firewall *firewall, uint64_t *counters, const struct question *question,
	  const struct firewall_entry *entry)
{
	switch ((enum firewall_action)entry->action) {
	case FIREWALL_ACCEPT:
	case FIREWALL_DROP:
	case FIREWALL_REJECT:
		return true;
	case FIREWALL_LOG:
		if (event_add(firewall, question->pkt, question->headers, entry->rule,
			      question->now_ns))
			counters[FIREWALL_LOGGED]++;
		else
			counters[FIREWALL_LOGS_LOST]++;
		break;
	case FIREWALL_COUNT:
	case FIREWALL_SKIP:
		break;
	}
	if (entry->is_counted)
		firewall->rules.hits[entry->rule]++;
	return false;
}

static bool
is_asked(const struct firewall_entry *entry, struct question *question)
{
	if (entry->side != FIREWALL_SIDE_ANY &&
	    entry->side != (question->is_far ? FIREWALL_SIDE_FAR : FIREWALL_SIDE_NEAR))
		return false;
	return true;
}

uint32_t
matching_find(struct firewall *firewall, uint64_t *counters, struct question *question)
{
	struct matching *const matching = firewall->rules.matching;
	const struct onvm_headers *const headers = question->headers;
	const struct bits_field *const fields = matching->fields[headers->ip_version == 6];
	const uint32_t nb_words = matching->nb_words;
	const uint8_t *const ends = question->pkt->data + headers->l3_offset +
				    (headers->ip_version == 4 ? 12 : 8);
	const uint8_t *const dst = ends + onvm_address_bytes(headers->ip_version);
	const uint64_t *const src_bits = bits_find(&fields[FIREWALL_FIELD_SRC],
						   number_of(headers->ip_version, ends), nb_words);
	const uint64_t *const dst_bits = bits_find(&fields[FIREWALL_FIELD_DST],
						   number_of(headers->ip_version, dst), nb_words);
	const uint64_t *const protocol_bits =
		bits_find(&fields[FIREWALL_FIELD_PROTOCOL], headers->protocol, nb_words);
	const uint64_t *src_port_bits = protocol_bits, *dst_port_bits = protocol_bits;
	uint32_t next = 0;

	if (headers->has_ports && !question->is_fragment) {
		src_port_bits =
			bits_find(&fields[FIREWALL_FIELD_SRC_PORT], headers->src_port, nb_words);
		dst_port_bits =
			bits_find(&fields[FIREWALL_FIELD_DST_PORT], headers->dst_port, nb_words);
	}
	while (next < question->end) {
		const uint32_t word = next / 64;
		uint64_t bits = src_bits[word] & dst_bits[word] & protocol_bits[word] &
				src_port_bits[word] & dst_port_bits[word];

		bits &= ~0ull << (next % 64);
		next = (word + 1) * 64;
		for (; bits != 0; bits &= bits - 1) {
			const uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(bits);
			const struct firewall_entry *entry;

			if (position >= question->end)
				return 0;
			entry = &firewall->rules.entries[matching->places[position]];
			if (!is_asked(entry, question))
				continue;
			if (question->is_fragment && entry->names_transport) {
				/* its other conditions may still say no */
				question->has_chance |=
					entry->action == FIREWALL_ACCEPT &&
					conditions_meet(&matching->conditions, entry, question);
				continue;
			}
			if (!conditions_meet(&matching->conditions, entry, question))
				continue;
			if (carry_out(firewall, counters, question, entry))
				return matching->places[position] + 1;
			if (entry->action == FIREWALL_SKIP) {
				next = entry->next;
				break;
			}
		}
	}
	return 0;
}
