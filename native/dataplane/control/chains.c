/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Chains: set, bound to ports, and removed.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/publish.h"
#include "control/services.h"
#include "steering/retire.h"

static void
bind_port(struct onvm_dataplane *dp, uint16_t port, uint32_t binding)
{
	/* P1: pairs with the acquire loads P2 in ingress.c. */
	if (port < ONVM_PORTS_MAX)
		__atomic_store_n(&dp->ports[port].binding, binding, __ATOMIC_RELEASE);
}

/** Take the ports of chain @p id away from it. */
static void
unbind_ports(struct onvm_dataplane *dp, uint16_t id)
{
	for (uint32_t port = 0; port < ONVM_PORTS_MAX; port++)
		if ((uint16_t)dp->ports[port].binding == id)
			bind_port(dp, (uint16_t)port, 0);
}

/** Whether the ports of @p chain stay as they are. */
static bool
has_same_ports(const struct onvm_chain *chain, const struct onvm_dp_chain *wanted)
{
	return chain->is_used && chain->near_port == wanted->near_port &&
	       chain->far_port == wanted->far_port &&
	       chain->is_bidirectional == (wanted->is_bidirectional != 0) &&
	       chain->by_rules == (wanted->by_rules != 0) && chain->number == wanted->number;
}

/** Whether @p port can be the end of a chain: one of this host, or of a peer. */
static bool
is_port(const struct onvm_dataplane *dp, uint16_t port)
{
	const uint16_t peer = port & (ONVM_PORT_REMOTE - 1);

	return port < ONVM_PORTS_MAX || ((port & ONVM_PORT_REMOTE) != 0 && peer < ONVM_PEERS_MAX &&
					 dp->peers.peers[peer].is_used);
}

int
onvm_dp_chain_set(uint32_t id, const struct onvm_dp_chain *wanted)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_chain *chain;
	int rc;

	if (id == 0 || id >= ONVM_CHAINS_MAX || wanted->nb_services > ONVM_CHAIN_LENGTH_MAX ||
	    !is_port(dp, wanted->near_port) || !is_port(dp, wanted->far_port) ||
	    (wanted->number == 0 && (wanted->near_port | wanted->far_port) >= ONVM_PORTS_MAX))
		return onvm_fail(-EINVAL, "chain %u: %u services, ports %u and %u", id,
				 wanted->nb_services, wanted->near_port, wanted->far_port);
	chain = &dp->steering.chains[id];
	/* Of a chain, workers read the ports; its services they know from the candidates. */
	if (chain->is_used && !has_same_ports(chain, wanted)) {
		unbind_ports(dp, (uint16_t)id);
		onvm_publish(dp);
	}
	chain->is_bidirectional = wanted->is_bidirectional != 0;
	chain->by_rules = wanted->by_rules != 0;
	__atomic_store_n(&chain->number, wanted->number, __ATOMIC_RELEASE);
	__atomic_store_n(&chain->waits, wanted->waits != 0, __ATOMIC_RELAXED);
	__atomic_store_n(&chain->track_flows, wanted->track_flows != 0, __ATOMIC_RELAXED);
	chain->nb_services = (uint8_t)wanted->nb_services;
	memcpy(chain->services, wanted->services, sizeof(chain->services));
	chain->near_port = wanted->near_port;
	chain->far_port = wanted->far_port;
	__atomic_store_n(&chain->is_used, true, __ATOMIC_RELEASE);
	onvm_services_set_packet_forms(dp);
	onvm_services_set_lives(dp, (uint16_t)id);
	rc = onvm_publish_candidates(dp);
	onvm_steering_retire_chain(&dp->steering, (uint16_t)id);
	if (wanted->is_unbound) {
		unbind_ports(dp, (uint16_t)id);
		return rc;
	}
	if (chain->by_rules) {
		/* The far port's new flows take it where no other chain has that port. */
		if (chain->is_bidirectional && chain->far_port < ONVM_PORTS_MAX &&
		    dp->ports[chain->far_port].binding == 0)
			bind_port(dp, chain->far_port, id | ONVM_BINDING_FAR);
		return rc;
	}
	bind_port(dp, chain->near_port, id);
	if (chain->is_bidirectional && chain->far_port != chain->near_port)
		bind_port(dp, chain->far_port, id | ONVM_BINDING_FAR);
	return rc;
}

/** Give the ports of chain @p id that are ports of @p next in the same way to that chain. */
static void
rebind_ports(struct onvm_dataplane *dp, uint16_t id, uint16_t next)
{
	const struct onvm_chain *chain = &dp->steering.chains[next];

	for (uint32_t port = 0; port < ONVM_PORTS_MAX; port++) {
		const uint32_t binding = dp->ports[port].binding;

		if ((uint16_t)binding != id)
			continue;
		if (binding & ONVM_BINDING_FAR ?
			    chain->is_bidirectional && port == chain->far_port :
			    !chain->by_rules && port == chain->near_port)
			bind_port(dp, (uint16_t)port, next | (binding & ONVM_BINDING_FAR));
	}
}

int
onvm_dp_chain_succeed(uint32_t id, uint32_t successor)
{
	struct onvm_steering *steering = &onvm_dp.steering;

	if (id == 0 || id >= ONVM_CHAINS_MAX || successor == 0 || successor >= ONVM_CHAINS_MAX ||
	    id == successor || !steering->chains[id].is_used ||
	    !steering->chains[successor].is_used)
		return onvm_fail(-ENOENT, "there are no chains %u and %u", id, successor);
	rebind_ports(&onvm_dp, (uint16_t)id, (uint16_t)successor);
	onvm_steering_succeed_chain(steering, (uint16_t)id, (uint16_t)successor);
	return 0;
}

int
onvm_dp_chain_remove(uint32_t id)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_candidates *old;
	struct onvm_chain *chain;

	if (id == 0 || id >= ONVM_CHAINS_MAX || !dp->steering.chains[id].is_used)
		return onvm_fail(-ENOENT, "there is no chain %u", id);
	chain = &dp->steering.chains[id];
	unbind_ports(dp, (uint16_t)id);
	old = chain->candidates;
	__atomic_store_n(&chain->candidates, NULL, __ATOMIC_RELEASE);
	chain->is_used = false;
	onvm_services_set_packet_forms(dp);
	onvm_publish(dp);
	onvm_steering_retire_chain(&dp->steering, (uint16_t)id);
	pthread_mutex_lock(&dp->steering.changes);
	onvm_steering_free_candidates(old);
	pthread_mutex_unlock(&dp->steering.changes);
	return 0;
}
