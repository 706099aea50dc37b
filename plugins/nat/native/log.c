/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What happens to mappings, so that operators can say later who had an external port (RFC 6888
 * REQ-12).
 * Events wait in a ring until they are taken, between bursts. When it is full they are lost, and
 * counted: packets never wait for them.
 */

#include "nat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int
nat_log_create(struct nat *nat)
{
	nat->events = calloc(NAT_EVENTS_MAX, sizeof(*nat->events));
	return nat->events == NULL ? -ENOMEM : 0;
}

void
nat_log_note(struct nat *nat, const struct nat_mapping *mapping, bool is_opened)
{
	const struct nat_endpoint *const inside = &mapping->inside;
	struct nat_event *event;

	if (nat->nb_events == NAT_EVENTS_MAX) {
		nat->counters[NAT_EVENTS_LOST]++;
		return;
	}
	event = &nat->events[nat->nb_events++];
	memset(event, 0, sizeof(*event));
	event->time_ns = nat->now_ns;
	event->is_opened = is_opened;
	event->protocol = inside->protocol;
	event->is_ipv6 = nat_is_stand_in(inside->address);
	if (event->is_ipv6)
		memcpy(event->inside, nat_host_of(nat, inside->address), sizeof(event->inside));
	else
		memcpy(event->inside, inside->address, sizeof(inside->address));
	memcpy(event->inside_port, inside->port, sizeof(event->inside_port));
	memcpy(event->external, nat->config.externals[mapping->external], sizeof(event->external));
	memcpy(event->port, mapping->port, sizeof(event->port));
	memcpy(event->vlan, inside->vlan, sizeof(event->vlan));
}

uint32_t
nat_log_take(struct nat *nat, struct nat_event *events, uint32_t nb)
{
	const uint32_t nb_taken = nat->nb_events < nb ? nat->nb_events : nb;

	if (nat->events == NULL)
		return 0;
	memcpy(events, nat->events, nb_taken * sizeof(*events));
	nat->nb_events -= nb_taken;
	memmove(nat->events, nat->events + nb_taken, nat->nb_events * sizeof(*events));
	return nb_taken;
}
