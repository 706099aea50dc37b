/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reading counters: each has one writer; readers add up over workers.
 */

#include <errno.h>
#include <string.h>

#include "control/ports.h"
#include "control/publish.h"
#include "flows/ageing.h"
#include "ports/kinds.h"

static const struct {
	const char *name;
	const char *text;
} drop_reasons[ONVM_DROPS] = {
#define ONVM_X(constant, name, text) [ONVM_DROP_##constant] = {name, text},
	ONVM_DROP_REASONS(ONVM_X)
#undef ONVM_X
};

const char *
onvm_dp_drop_name(uint32_t reason)
{
	return reason < ONVM_DROPS ? drop_reasons[reason].name : NULL;
}

const char *
onvm_dp_drop_text(uint32_t reason)
{
	return reason < ONVM_DROPS ? drop_reasons[reason].text : NULL;
}

double
onvm_dp_cycles_per_second(void)
{
	return (double)onvm_dp.hz;
}

int
onvm_dp_notice_fd(void)
{
	return onvm_dp.notice_fd;
}

double
onvm_dp_latency_bound_ns(uint32_t bucket)
{
	return 32.0 * (double)(1ull << bucket / 4) * (1.0 + (double)(bucket % 4) / 4);
}

/** Buffers of a pool that wait in ports for packets: they hold none. */
static uint64_t
nb_posted(const struct onvm_dataplane *dp, const struct rte_mempool *pool)
{
	uint64_t nb = 0;

	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
		const struct onvm_port *port = &dp->ports[id];

		if (port->state == ONVM_PORT_CLOSED)
			continue;
		for (uint32_t q = 0; q < port->nb_queues; q++)
			nb += port->pools[q] == pool ? port->nb_posted[q] : 0u;
	}
	return nb;
}

void
onvm_dp_read_stats(struct onvm_dp_stats *stats)
{
	struct onvm_dataplane *dp = &onvm_dp;

	memset(stats, 0, sizeof(*stats));
	onvm_ports_read(dp);
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		const struct onvm_worker_stats *own = &dp->workers[w].stats;

		for (int reason = 0; reason < ONVM_DROPS; reason++)
			stats->drops[reason] += own->drops[reason];
		stats->originated += own->originated;
		stats->new_flows += own->new_flows;
		stats->learned_flows += own->learned_flows;
		stats->flow_table_full += own->flow_table_full;
		stats->idle_cycles += own->idle_cycles;
		stats->sleeps += own->sleeps;
	}
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++)
		if (dp->ports[id].state != ONVM_PORT_CLOSED)
			onvm_port_add_losses(&dp->ports[id].losses, stats->drops);
	for (int reason = 0; reason < ONVM_DROPS; reason++)
		stats->drops[reason] += dp->closed_drops[reason];
	stats->flows = onvm_flow_table_used(&dp->flows);
	stats->nb_areas = dp->memory.nb_areas;
	for (uint32_t a = 0; a < dp->memory.nb_areas; a++) {
		const struct onvm_memory_area *area = &dp->memory.areas[a];
		struct onvm_dp_area_stats *own = &stats->areas[a];

		own->numa_node = area->node;
		own->bind_error = area->bind_error;
		own->total = area->nb_buffers - area->nb_withheld;
		own->free = rte_mempool_avail_count(area->pool) + nb_posted(dp, area->pool);
		for (uint32_t i = area->first; i < area->first + area->nb_buffers; i++)
			own->with_nfs += dp->memory.buffers[i].owner != ONVM_OWNER_NONE;
		stats->buffers_total += own->total;
		stats->buffers_free += own->free;
		stats->buffers_with_nfs += own->with_nfs;
	}
	stats->nb_paths = onvm_steering_nb_paths(&dp->steering);
	stats->closed_rx = dp->closed_rx;
	stats->closed_tx = dp->closed_tx;
}

int
onvm_dp_read_port(uint32_t port, struct onvm_dp_port_stats *stats)
{
	struct onvm_dataplane *dp = &onvm_dp;
	const struct onvm_port_losses *losses;

	memset(stats, 0, sizeof(*stats));
	if (port >= ONVM_PORTS_MAX || dp->ports[port].state == ONVM_PORT_CLOSED)
		return onvm_fail(-ENOENT, "there is no port %u", port);
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		const struct onvm_worker_port *wport = dp->wports[w][port];

		stats->rx += wport->stats.rx;
		stats->rx_bytes += wport->stats.rx_bytes;
		stats->tx += wport->stats.tx;
		stats->tx_bytes += wport->stats.tx_bytes;
		for (int i = 0; i < ONVM_LATENCY_BUCKETS; i++)
			stats->latency[i] += wport->stats.latency.buckets[i];
		stats->nb_held += wport->nb_held + wport->nb_ready;
	}
	if (dp->reassembly != NULL)
		stats->nb_held += onvm_reassembly_count_of(dp->reassembly, (uint16_t)port);
	stats->is_finished = __atomic_load_n(&dp->ports[port].is_finished, __ATOMIC_ACQUIRE);
	stats->is_gone = __atomic_load_n(&dp->ports[port].is_gone, __ATOMIC_ACQUIRE);
	losses = &dp->ports[port].losses;
	stats->is_down = dp->ports[port].is_down;
	stats->nb_missed = losses->nb_missed;
	stats->nb_no_buffer = losses->nb_no_buffer;
	stats->nb_rx_errors = losses->nb_rx_errors;
	stats->nb_refused = losses->nb_refused;
	stats->nb_large = losses->nb_large;
	stats->nb_down = losses->nb_down;
	stats->nb_unwritten = losses->nb_unwritten;
	stats->rx += losses->nb_missed + losses->nb_no_buffer + losses->nb_rx_errors;
	stats->tx -= onvm_port_unsent(losses);
	/* Pairs with the release store in onvm_port_fail(). */
	if (__atomic_load_n(&dp->ports[port].has_fault, __ATOMIC_ACQUIRE))
		memcpy(stats->fault, dp->ports[port].fault, sizeof(stats->fault));
	return 0;
}

int
onvm_dp_read_gen(uint32_t port, struct onvm_dp_gen_stats *stats)
{
	struct onvm_dataplane *dp = &onvm_dp;

	memset(stats, 0, sizeof(*stats));
	if (port >= ONVM_PORTS_MAX || dp->ports[port].state == ONVM_PORT_CLOSED)
		return onvm_fail(-ENOENT, "there is no port %u", port);
	if (onvm_port_gen_read(&dp->ports[port], stats) != 0)
		return onvm_fail(-EINVAL, "port %s is not a generator", dp->ports[port].name);
	return 0;
}

static void
add_link(struct onvm_dp_host_stats *stats, const struct onvm_link *link)
{
	const struct onvm_link_stats *own = &link->stats;

	for (int dir = 0; dir < 2; dir++) {
		stats->rx[dir] += own->rx[dir];
		for (int stage = 0; stage < ONVM_STAGES_MAX; stage++)
			stats->exits[dir][stage] += own->exits[dir][stage];
	}
	for (int stage = 0; stage < ONVM_STAGES_MAX; stage++) {
		for (int reason = 0; reason < ONVM_REASONS_MAX; reason++)
			stats->drops[stage][reason] += own->drops[stage][reason];
		stats->originated[stage] += own->originated[stage];
	}
	stats->lost += own->lost;
	stats->nb_shed += own->nb_shed;
	stats->nb_bad += own->nb_bad;
	if (own->peak > stats->peak)
		stats->peak = own->peak;
	stats->reserved += link->reserved;
	for (int i = 0; i < ONVM_LATENCY_BUCKETS; i++)
		stats->latency[i] += own->latency.buckets[i];
	if (link->fault > stats->fault)
		stats->fault = link->fault;
}

int
onvm_dp_read_host(uint32_t host, struct onvm_dp_host_stats *stats)
{
	struct onvm_dataplane *dp = &onvm_dp;
	const struct onvm_area_control *control;

	memset(stats, 0, sizeof(*stats));
	if (host >= ONVM_HOSTS_MAX || dp->links[0][host] == NULL)
		return onvm_fail(-ENOENT, "there is no NF host %u", host);
	for (uint32_t w = 0; w < dp->config.nb_workers; w++)
		add_link(stats, dp->links[w][host]);
	control = dp->links[0][host]->control;
	for (int stage = 0; stage < ONVM_STAGES_MAX; stage++) {
		stats->packets[stage] = control->stage[stage].packets;
		stats->busy_cycles[stage] = control->stage[stage].busy_cycles;
		stats->held[stage] = control->stage[stage].held;
		stats->hold_refused[stage] = control->stage[stage].hold_refused;
		memcpy(stats->counters[stage], control->stage[stage].counters,
		       sizeof(stats->counters[stage]));
	}
	stats->idle_cycles = control->idle_cycles;
	stats->sleeps = control->sleeps;
	stats->loops = control->loops;
	stats->turn_sums = control->sums;
	return 0;
}

static void
show_flow(const struct onvm_dataplane *dp, uint32_t position, const struct onvm_flow *flow,
	  enum onvm_flow_kind kind, const union onvm_flow_key *key, struct onvm_dp_flow *shown)
{
	const uint16_t index = onvm_steering_resolve(&dp->steering, flow->path);
	const struct onvm_path *path = &dp->steering.paths[index];

	memset(shown, 0, sizeof(*shown));
	shown->ip_version = kind == ONVM_FLOW_KIND_IPV4 ? 4 : 6;
	shown->is_reverse = (flow->flags & ONVM_FLOW_REVERSE) != 0;
	shown->path = index;
	shown->chain = path->chain;
	shown->spi = path->spi;
	shown->nb_hops = path->nb_hops;
	for (int i = 0; i < path->nb_hops; i++)
		shown->hosts[i] = path->hops[i].host;
	shown->idle_ms = onvm_flow_idle_ticks(&dp->flows, position) * dp->flows.tick_ms;
	if (kind == ONVM_FLOW_KIND_IPV4) {
		memcpy(shown->src, &key->v4.src, 4);
		memcpy(shown->dst, &key->v4.dst, 4);
		shown->src_port = key->v4.src_port;
		shown->dst_port = key->v4.dst_port;
		shown->vlan = key->v4.vlan;
		shown->port = key->v4.port;
		shown->protocol = key->v4.protocol;
	} else {
		memcpy(shown->src, key->v6.src, sizeof(shown->src));
		memcpy(shown->dst, key->v6.dst, sizeof(shown->dst));
		shown->src_port = key->v6.src_port;
		shown->dst_port = key->v6.dst_port;
		shown->vlan = key->v6.vlan;
		shown->port = key->v6.port;
		shown->protocol = key->v6.protocol;
	}
}

int
onvm_dp_read_flows(uint32_t *cursor, struct onvm_dp_flow *flows, uint32_t nb)
{
	struct onvm_dataplane *dp = &onvm_dp;
	const uint32_t end = __atomic_load_n(&dp->flows.high, __ATOMIC_RELAXED);
	uint32_t nb_shown = 0;

	for (; *cursor < end && nb_shown < nb; (*cursor)++) {
		union onvm_flow_key key;
		enum onvm_flow_kind kind;
		struct onvm_flow flow;

		if (onvm_flow_table_read(&dp->flows, *cursor, &kind, &key, &flow) &&
		    (flow.flags & ONVM_FLOW_ADDRESS) == 0)
			show_flow(dp, *cursor, &flow, kind, &key, &flows[nb_shown++]);
	}
	return (int)nb_shown;
}
