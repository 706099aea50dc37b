/* SPDX-License-Identifier: Apache-2.0 */
#include "event.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"

#define EVENTS_MAX 1024u
#define NS 1000000000ull

struct event_ring {
	struct firewall_bucket rate;
	uint32_t head, nb;
	struct firewall_event events[EVENTS_MAX];
};

int
event_ring_create(const struct firewall_config *config, struct event_ring **ring)
{
	for (uint32_t i = 0; i < config->nb_entries; i++) {
		if (config->entries[i].action != FIREWALL_LOG)
			continue;
		*ring = calloc(1, sizeof(**ring));
		return *ring == NULL ? -ENOMEM : 0;
	}
	return 0;
}

bool
event_add(struct firewall *firewall, const struct onvm_pkt *pkt, const struct onvm_headers *headers,
	  uint32_t rule, uint64_t now_ns)
{
	struct event_ring *const ring = firewall->events;
	const uint32_t rate = firewall->config.log_rate;
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	const uint8_t *const ends = pkt->data + headers->l3_offset +
				    (headers->ip_version == 4 ? 12 : 8);
	struct firewall_event *event;

	if (ring->nb == EVENTS_MAX || rate == 0 ||
	    !bucket_take(&ring->rate, NS / rate, NS / rate * rate, now_ns))
		return false;
	event = &ring->events[(ring->head + ring->nb++) % EVENTS_MAX];
	*event = (struct firewall_event){
		.time_ns = now_ns,
		.rule = rule,
		.src_port = headers->has_ports ? headers->src_port : 0,
		.dst_port = headers->has_ports ? headers->dst_port : 0,
		.port = pkt->port,
		.length = pkt->length,
		.vlan = headers->nb_vlans != 0 ? headers->vlan_tci[0] & 0xfff : 0,
		.ip_version = headers->ip_version,
		.protocol = headers->protocol,
		.tcp_flags = headers->tcp_flags,
	};
	memcpy(event->src, ends, size);
	memcpy(event->dst, ends + size, size);
	return true;
}

uint32_t
firewall_events(struct firewall *firewall, struct firewall_event *events, uint32_t nb)
{
	struct event_ring *const ring = firewall->events;
	uint32_t taken = 0;

	for (; ring != NULL && taken < nb && ring->nb != 0; taken++, ring->nb--) {
		events[taken] = ring->events[ring->head];
		ring->head = (ring->head + 1) % EVENTS_MAX;
	}
	return taken;
}
