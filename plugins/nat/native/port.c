/* SPDX-License-Identifier: Apache-2.0 */

/*
 * External ports: which one an endpoint gets, and when a freed one is used again.
 */

#include "nat.h"

#include <onvm/siphash.h>

#define EVEN_PORTS 0x5555555555555555ull
#define ALL_PORTS UINT64_MAX
#define WELL_KNOWN_END 1024u

/* First free port of [first, end) whose bit is in @p mask, or -1. */
static int32_t
free_port_find(const uint64_t *used, uint32_t first, uint32_t end, uint64_t mask)
{
	for (uint32_t port = first; port < end; port = (port | 63) + 1) {
		const uint64_t from_here = UINT64_MAX << (port & 63);
		const uint64_t free = ~used[port >> 6] & mask & from_here;

		if (free != 0) {
			const uint32_t found = (port & ~63u) + (uint32_t)__builtin_ctzll(free);

			return found < end ? (int32_t)found : -1;
		}
	}
	return -1;
}

/* The same from @p start on and around the end. */
static int32_t
free_port_find_around(const uint64_t *used, uint32_t first, uint32_t end, uint32_t start,
		      uint64_t mask)
{
	const int32_t port = free_port_find(used, start, end, mask);

	return port >= 0 ? port : free_port_find(used, first, start, mask);
}

/* Ports that have rested are free. */
static void
rested_release(const struct nat *nat, struct nat_ports *ports, uint64_t now_ns)
{
	while (ports->nb_resting != 0) {
		const struct nat_resting *const oldest = &ports->resting[ports->first_resting];

		if (now_ns < oldest->freed_ns ||
		    now_ns - oldest->freed_ns < nat->config.port_rest_ns)
			return;
		ports->used[oldest->port >> 6] &= ~(1ull << (oldest->port & 63));
		ports->nb_used--;
		ports->first_resting = (ports->first_resting + 1) % NAT_PORTS;
		ports->nb_resting--;
	}
}

/* Sessions end in the order of their idle times, so a port is seldom freed much before the last. */
static void
rest(struct nat_ports *ports, uint32_t port, uint64_t freed_ns)
{
	uint32_t at = ports->nb_resting++;

	for (; at != 0; at--) {
		const struct nat_resting *const before =
			&ports->resting[(ports->first_resting + at - 1) % NAT_PORTS];

		if (before->freed_ns <= freed_ns)
			break;
		ports->resting[(ports->first_resting + at) % NAT_PORTS] = *before;
	}
	ports->resting[(ports->first_resting + at) % NAT_PORTS] =
		(struct nat_resting){.freed_ns = freed_ns, .port = port};
}

/*
 * RFC 4787 REQ-3: never a port that another endpoint has; REQ-3a: below 1024 for a port below 1024;
 * REQ-4: of the same parity while there is one. RFC 6056: where the search begins is a secret.
 */
int32_t
nat_port_take(struct nat *nat, uint32_t external, enum nat_space space,
	      const struct nat_endpoint *endpoint, uint64_t now_ns)
{
	const uint32_t first = nat->config.first_port, end = nat->config.end_port;
	const uint32_t wanted = onvm_load_be16(endpoint->port);
	const uint64_t hash = onvm_siphash(nat->config.key, endpoint, sizeof(*endpoint));
	const bool is_split = space != NAT_ICMP && first < WELL_KNOWN_END && end > WELL_KNOWN_END;
	const bool is_low = wanted < WELL_KNOWN_END;
	const uint32_t ranges[2][2] = {
		{is_split && !is_low ? WELL_KNOWN_END : first,
		 is_split && is_low ? WELL_KNOWN_END : end},
		{WELL_KNOWN_END, end},
	};
	struct nat_ports *const ports = &nat->ports[external][space];

	rested_release(nat, ports, now_ns);
	if (ports->nb_used == end - first)
		return -1;
	if (nat->config.keeps_port && nat_port_is_own(nat, wanted) &&
	    (ports->used[wanted >> 6] >> (wanted & 63) & 1) == 0) {
		nat_port_use(nat, external, space, wanted);
		return (int32_t)wanted;
	}
	for (uint32_t i = 0; i < (is_split && is_low ? 2u : 1u); i++) {
		const uint32_t from = ranges[i][0], to = ranges[i][1];
		const uint32_t start = from + (uint32_t)(hash % (to - from));
		int32_t port = -1;

		if (nat->config.keeps_parity && space != NAT_ICMP)
			port = free_port_find_around(ports->used, from, to, start,
						     EVEN_PORTS << (wanted & 1));
		if (port < 0)
			port = free_port_find_around(ports->used, from, to, start, ALL_PORTS);
		if (port >= 0) {
			nat_port_use(nat, external, space, (uint32_t)port);
			return port;
		}
	}
	return -1;
}

/* A port that rests is wanted by name: for a session that comes from another instance. */
static void
rest_end(struct nat_ports *ports, uint32_t port)
{
	uint32_t nb_kept = 0;

	for (uint32_t i = 0; i < ports->nb_resting; i++) {
		const struct nat_resting one =
			ports->resting[(ports->first_resting + i) % NAT_PORTS];

		if (one.port != port)
			ports->resting[(ports->first_resting + nb_kept++) % NAT_PORTS] = one;
	}
	ports->nb_used -= ports->nb_resting - nb_kept;
	ports->nb_resting = nb_kept;
}

void
nat_port_use(struct nat *nat, uint32_t external, enum nat_space space, uint32_t port)
{
	struct nat_ports *const ports = &nat->ports[external][space];

	if ((ports->used[port >> 6] >> (port & 63) & 1) != 0)
		rest_end(ports, port);
	ports->used[port >> 6] |= 1ull << (port & 63);
	if (nat_port_is_own(nat, port))
		ports->nb_used++;
	else
		nat->nb_inherited++;
}

void
nat_port_give_back(struct nat *nat, uint32_t external, enum nat_space space, uint32_t port,
		   uint64_t freed_ns)
{
	struct nat_ports *const ports = &nat->ports[external][space];

	ports->mapping_of[port] = -1;
	if (nat_port_is_own(nat, port) && freed_ns != 0 && nat->config.port_rest_ns != 0) {
		rest(ports, port, freed_ns);
		return;
	}
	ports->used[port >> 6] &= ~(1ull << (port & 63));
	if (nat_port_is_own(nat, port))
		ports->nb_used--;
	else
		nat->nb_inherited--;
}
