/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Opening and closing ports: the control thread's side of port.h.
 */

#include "control/ports.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "control/publish.h"
#include "flows/chain_rules.h"
#include "ports/kinds.h"

/** Held while a port is closed or read, or its device released, by one thread or the other. */
static pthread_mutex_t closing = PTHREAD_MUTEX_INITIALIZER;

void
onvm_port_free(struct onvm_dataplane *dp, uint32_t id)
{
	struct onvm_port *port = &dp->ports[id];

	if (port->state != ONVM_PORT_CLOSED)
		port->ops->close(port);
	onvm_chain_rules_free(port->rules);
	port->rules = NULL;
	port->state = ONVM_PORT_CLOSED;
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		free(dp->wports[w][id]);
		dp->wports[w][id] = NULL;
	}
}

/** Let packets that come in wake the workers that serve their queues. */
static int
watch(struct onvm_dataplane *dp, const struct onvm_port *port)
{
	struct epoll_event event = {.events = EPOLLIN};

	for (uint32_t q = 0; q < port->nb_wake_fds; q++)
		if (epoll_ctl(dp->workers[q % dp->config.nb_workers].poll_fd, EPOLL_CTL_ADD,
			      port->wake_fds[q], &event) != 0)
			return -errno;
	return 0;
}

/** Give every worker its worker port of a port that has been opened. */
static int
add_worker_ports(struct onvm_dataplane *dp, struct onvm_port *port)
{
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		struct onvm_worker_port *wport = calloc(1, sizeof(*wport));

		if (wport == NULL)
			return -ENOMEM;
		wport->port = port;
		for (uint32_t q = w; q < port->nb_queues; q += dp->config.nb_workers)
			if (wport->nb_queues < RTE_DIM(wport->queues))
				wport->queues[wport->nb_queues++] = (uint16_t)q;
		dp->wports[w][port->id] = wport;
	}
	return watch(dp, port);
}

/** A free port with its name and memory; NULL when all are taken. */
static struct onvm_port *
take(struct onvm_dataplane *dp, const char *name)
{
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
		struct onvm_port *port = &dp->ports[id];

		if (port->state != ONVM_PORT_CLOSED)
			continue;
		memset(port, 0, sizeof(*port));
		port->id = (uint16_t)id;
		port->memory = &dp->memory;
		for (uint32_t q = 0; q < RTE_DIM(port->pools); q++)
			port->pools[q] = onvm_packet_pool(
				&dp->memory, dp->config.worker_nodes[q % dp->config.nb_workers]);
		snprintf(port->name, sizeof(port->name), "%s", name);
		return port;
	}
	onvm_fail(-ENOSPC, "all %u ports are taken", ONVM_PORTS_MAX);
	return NULL;
}

int
onvm_port_open(struct onvm_dataplane *dp, const char *name, onvm_port_opener *open,
	       const void *options)
{
	struct onvm_port *port = take(dp, name);
	char reason[256] = "";
	int rc;

	if (port == NULL)
		return -ENOSPC;
	rc = open(port, options, dp->config.nb_workers, reason, sizeof(reason));
	if (rc != 0)
		return onvm_fail(rc, "%s", reason[0] != '\0' ? reason : strerror(-rc));
	rc = port->nb_queues > RTE_DIM(port->pools) ? -EINVAL : add_worker_ports(dp, port);
	if (rc != 0) {
		port->state = ONVM_PORT_OPEN;
		onvm_port_free(dp, port->id);
		return onvm_fail(rc, "%s", strerror(-rc));
	}
	if (port->takes_offloads)
		__atomic_or_fetch(&dp->has_offloads, ONVM_HAS_PARTIAL, __ATOMIC_RELAXED);
	if (port->has_times)
		__atomic_store_n(&dp->has_times, 1, __ATOMIC_RELAXED);
	/* P1: pairs with the acquire load P2 in take_over_ports(). */
	__atomic_store_n(&port->state, ONVM_PORT_OPEN, __ATOMIC_RELEASE);
	onvm_publish(dp);
	return port->id;
}

void
onvm_ports_release(struct onvm_dataplane *dp)
{
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
		struct onvm_port *port = &dp->ports[id];

		/* Pairs with the release store of the thread that heard of it. */
		if (!__atomic_load_n(&port->is_gone, __ATOMIC_ACQUIRE) || port->is_released)
			continue;
		pthread_mutex_lock(&closing);
		if (__atomic_load_n(&port->state, __ATOMIC_ACQUIRE) == ONVM_PORT_OPEN) {
			onvm_publish(dp);
			/* A worker that stops may still be in the device: closing the port follows. */
			if (!__atomic_load_n(&dp->must_stop, __ATOMIC_ACQUIRE) &&
			    port->ops->release != NULL) {
				port->ops->release(port);
				port->is_released = true;
			}
		}
		pthread_mutex_unlock(&closing);
	}
}

void
onvm_ports_revive(struct onvm_dataplane *dp)
{
	pthread_mutex_lock(&closing);
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
		struct onvm_port *port = &dp->ports[id];

		if (__atomic_load_n(&port->state, __ATOMIC_ACQUIRE) != ONVM_PORT_OPEN ||
		    port->ops->revive == NULL || !port->ops->revive(port))
			continue;
		port->is_released = false;
		if (watch(dp, port) != 0)
			port->is_polled = true; /* nothing else would find its packets */
	}
	pthread_mutex_unlock(&closing);
}

void
onvm_ports_read(struct onvm_dataplane *dp)
{
	pthread_mutex_lock(&closing);
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
		struct onvm_port *port = &dp->ports[id];
		struct onvm_port_losses losses = {0};

		if (__atomic_load_n(&port->state, __ATOMIC_ACQUIRE) == ONVM_PORT_CLOSED ||
		    port->ops->read == NULL)
			continue;
		port->ops->read(port, &losses, &port->is_down);
		port->losses = losses;
	}
	pthread_mutex_unlock(&closing);
}

void
onvm_port_add_losses(const struct onvm_port_losses *losses, uint64_t *drops)
{
	drops[ONVM_DROP_RX_MISSED] += losses->nb_missed;
	drops[ONVM_DROP_RX_NO_BUFFER] += losses->nb_no_buffer;
	drops[ONVM_DROP_RX_ERROR] += losses->nb_rx_errors;
	drops[ONVM_DROP_TX_REFUSED] += losses->nb_refused;
	drops[ONVM_DROP_MTU] += losses->nb_large;
	drops[ONVM_DROP_DOWN] += losses->nb_down;
	drops[ONVM_DROP_WRITE_FAILED] += losses->nb_unwritten;
}

uint64_t
onvm_port_unsent(const struct onvm_port_losses *losses)
{
	return losses->nb_refused + losses->nb_large + losses->nb_down + losses->nb_unwritten;
}

void
onvm_ports_finish(struct onvm_dataplane *dp)
{
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++)
		if (dp->ports[id].state == ONVM_PORT_OPEN && dp->ports[id].ops->finish != NULL)
			dp->ports[id].ops->finish(&dp->ports[id]);
}

int
onvm_dp_port_open(const char *name, enum onvm_port_kind kind,
		  const union onvm_port_options *options)
{
	static onvm_port_opener *const openers[ONVM_PORT_NB_KINDS] = {
#define ONVM_X(constant, kind_name) [ONVM_PORT_KIND_##constant] = onvm_port_##kind_name##_open,
		ONVM_PORT_KINDS(ONVM_X)
#undef ONVM_X
	};

	if ((unsigned int)kind >= ONVM_PORT_NB_KINDS)
		return onvm_fail(-EINVAL, "there is no port kind %u", (unsigned int)kind);
	return onvm_port_open(&onvm_dp, name, openers[kind], options);
}

int
onvm_dp_port_close(uint32_t id)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (id >= ONVM_PORTS_MAX || dp->ports[id].state != ONVM_PORT_OPEN)
		return onvm_fail(-ENOENT, "port %u is not open", id);
	for (uint16_t chain = 1; chain < ONVM_CHAINS_MAX; chain++)
		if (dp->steering.chains[chain].is_used &&
		    (dp->steering.chains[chain].near_port == id ||
		     dp->steering.chains[chain].far_port == id))
			return onvm_fail(-EBUSY, "port %s belongs to a chain", dp->ports[id].name);
	if (dp->ports[id].is_tunnel)
		onvm_prober_stop(&dp->prober);
	pthread_mutex_lock(&closing);
	__atomic_store_n(&dp->ports[id].state, ONVM_PORT_CLOSING, __ATOMIC_RELEASE);
	onvm_publish(dp);
	/* No worker uses it any more. Its packets remain part of the sums. */
	if (dp->ports[id].ops->finish != NULL)
		dp->ports[id].ops->finish(&dp->ports[id]);
	if (dp->ports[id].ops->read != NULL) {
		struct onvm_port_losses losses = {0};

		dp->ports[id].ops->read(&dp->ports[id], &losses, &dp->ports[id].is_down);
		onvm_port_add_losses(&losses, dp->closed_drops);
		dp->closed_rx += losses.nb_missed + losses.nb_no_buffer + losses.nb_rx_errors;
		dp->closed_tx -= onvm_port_unsent(&losses);
	}
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		dp->closed_rx += dp->wports[w][id]->stats.rx;
		dp->closed_tx += dp->wports[w][id]->stats.tx;
	}
	onvm_port_free(dp, id);
	pthread_mutex_unlock(&closing);
	return 0;
}

int
onvm_dp_port_rules(uint32_t id, const struct onvm_dp_rule *rules, uint32_t nb)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_chain_rules *made = NULL, *old;

	if (id >= ONVM_PORTS_MAX || dp->ports[id].state != ONVM_PORT_OPEN)
		return onvm_fail(-ENOENT, "port %u is not open", id);
	for (uint32_t i = 0; i < nb; i++)
		if (rules[i].chain == 0 || rules[i].chain >= ONVM_CHAINS_MAX)
			return onvm_fail(-EINVAL, "rule %u: chain %u", i, rules[i].chain);
	if (nb != 0) {
		made = onvm_chain_rules_create(rules, nb);
		if (made == NULL)
			return onvm_fail(-errno, "rules of port %s: %s", dp->ports[id].name,
					 strerror(errno));
	}
	old = dp->ports[id].rules;
	/* P1: pairs with the acquire load P2 in entry_of(). */
	__atomic_store_n(&dp->ports[id].rules, made, __ATOMIC_RELEASE);
	onvm_publish(dp);
	onvm_chain_rules_free(old);
	return 0;
}

void
onvm_dp_pause_sources(uint32_t is_paused)
{
	__atomic_store_n(&onvm_dp.sources_paused, is_paused != 0, __ATOMIC_RELEASE);
	onvm_wake_workers(&onvm_dp);
}
