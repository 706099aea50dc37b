/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ingress: reading the worker ports, each in its turn.
 *
 * Packets that can only take one path are admitted at once. Others are classified now and admitted
 * in the next turn. Packets without credits stay held when their source can wait.
 */

#include "worker/ingress.h"

#include <string.h>

#include "worker/admit.h"
#include "worker/credits.h"
#include "worker/fragments.h"
#include "worker/remote.h"

/** Credits that must be available before held packets are looked up again. */
#define HELD_CREDITS 16

/** The only path of all that a worker port receives, or 0 when its packets must be looked up. */
static inline uint16_t
only_path(const struct onvm_worker *worker, const struct onvm_worker_port *wport, uint32_t binding,
	  const struct onvm_candidates *candidates)
{
	const struct onvm_steering *steering = &worker->dp->steering;

	if (steering->chains[(uint16_t)binding].track_flows || candidates->single_path == 0 ||
	    __atomic_load_n(&wport->port->rules, __ATOMIC_RELAXED) != NULL)
		return 0;
	return binding & ONVM_BINDING_FAR ? steering->paths[candidates->single_path].opposite :
					    candidates->single_path;
}

/** Take @p nb packets of a worker port into the platform; what must wait stays held. */
static void
admit(struct onvm_worker *worker, struct onvm_worker_port *wport, struct rte_mbuf **mbufs,
      uint32_t nb)
{
	/* P2: binding and candidates pair with the release stores P1 of the control thread. */
	const uint32_t binding = __atomic_load_n(&wport->port->binding, __ATOMIC_ACQUIRE);
	const struct onvm_chain *chain = &worker->dp->steering.chains[(uint16_t)binding];
	const struct onvm_candidates *candidates =
		__atomic_load_n(&chain->candidates, __ATOMIC_ACQUIRE);
	uint16_t single;
	uint32_t nb_done;

	if (unlikely((uint16_t)binding == 0 || candidates == NULL)) {
		if (wport->port->can_wait) { /* its chain is being changed */
			memmove(wport->held, mbufs, nb * sizeof(*mbufs));
			wport->nb_held = (uint16_t)nb;
			return;
		}
		for (uint32_t i = 0; i < nb; i++)
			onvm_worker_drop(worker, mbufs[i], ONVM_DROP_NO_CHAIN);
		wport->nb_held = 0;
		return;
	}
	single = only_path(worker, wport, binding, candidates);
	if (single != 0)
		nb_done = onvm_admit_direct(worker, wport, single, mbufs, nb);
	else
		nb_done = onvm_admit_flows(worker, wport, binding, candidates, mbufs, nb);
	if (nb_done < nb) /* perhaps within `held` itself */
		memmove(wport->held, mbufs + nb_done, (nb - nb_done) * sizeof(*mbufs));
	wport->nb_held = (uint16_t)(nb - nb_done);
}

/** Whether a source that can wait should: its only path lacks credits for a burst. */
static bool
must_wait(struct onvm_worker *worker, const struct onvm_worker_port *wport)
{
	/* P2: binding and candidates pair with the release stores P1 of the control thread. */
	const uint32_t binding = __atomic_load_n(&wport->port->binding, __ATOMIC_ACQUIRE);
	const struct onvm_chain *chain = &worker->dp->steering.chains[(uint16_t)binding];
	const struct onvm_candidates *candidates =
		__atomic_load_n(&chain->candidates, __ATOMIC_ACQUIRE);
	const struct onvm_path *path;
	uint16_t single;

	if ((uint16_t)binding == 0 || candidates == NULL)
		return true;
	single = only_path(worker, wport, binding, candidates);
	if (single == 0)
		return candidates->default_path == 0;
	path = &worker->dp->steering.paths[single];
	return onvm_credits_available(worker, path, 0, true) <
	       ONVM_BURST_SIZE / (path->nb_visits + 1u);
}

/** Whether held packets would be looked up in vain: their path still lacks credits. */
static bool
still_waits(struct onvm_worker *worker, struct onvm_worker_port *wport)
{
	const struct onvm_path *path = &worker->dp->steering.paths[wport->waits_for];

	if (wport->waits_for == 0)
		return false;
	if (onvm_steering_resolve(&worker->dp->steering, wport->waits_for) == wport->waits_for &&
	    onvm_credits_available(worker, path, 0, true) < HELD_CREDITS)
		return true;
	wport->waits_for = 0;
	return false;
}

uint32_t
onvm_ingress_admit(struct onvm_worker *worker)
{
	uint32_t nb_total = 0;

	for (uint32_t i = 0; i < worker->nb_wports; i++) {
		struct onvm_worker_port *wport = worker->wports[i];
		const uint16_t nb_held = wport->nb_held;

		if (nb_held == 0 || still_waits(worker, wport))
			continue;
		admit(worker, wport, wport->held, nb_held);
		nb_total += nb_held - wport->nb_held;
	}
	return nb_total;
}

/** Take in a burst that was received: at once where there is one path, else in the next turn. */
static void
take_in(struct onvm_worker *worker, struct onvm_worker_port *wport, struct rte_mbuf **mbufs,
	uint16_t nb)
{
	/* P2: binding and candidates pair with the release stores P1 of the control thread. */
	const uint32_t binding = __atomic_load_n(&wport->port->binding, __ATOMIC_ACQUIRE);
	const struct onvm_candidates *candidates =
		__atomic_load_n(&worker->dp->steering.chains[(uint16_t)binding].candidates,
				__ATOMIC_ACQUIRE);

	if ((uint16_t)binding == 0 || candidates == NULL ||
	    only_path(worker, wport, binding, candidates) != 0) {
		admit(worker, wport, mbufs, nb);
		return;
	}
	memcpy(wport->held, mbufs, nb * sizeof(*mbufs));
	wport->nb_held = nb;
	onvm_classify(&worker->dp->flows, (uint8_t)wport->port->id, wport->held, nb, &wport->burst);
	wport->is_classified = true;
}

/** Count what a port has found and could not deliver. */
static inline void
count_undelivered(struct onvm_worker *worker, struct onvm_worker_port *wport,
		  const struct onvm_rx_result *result)
{
	const uint32_t nb = result->nb_oversize + result->nb_foreign + result->nb_congested +
			    result->nb_forged + result->nb_replayed;

	if (likely(nb == 0))
		return;
	wport->stats.rx += nb;
	worker->stats.drops[ONVM_DROP_OVERSIZE] += result->nb_oversize;
	worker->stats.drops[ONVM_DROP_FOREIGN] += result->nb_foreign;
	worker->stats.drops[ONVM_DROP_SHED] += result->nb_congested;
	worker->stats.drops[ONVM_DROP_FORGED] += result->nb_forged;
	worker->stats.drops[ONVM_DROP_REPLAYED] += result->nb_replayed;
}

/** Receive a burst from one queue; @return packets. */
static uint16_t
receive(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t queue)
{
	struct onvm_port *port = wport->port;
	struct rte_mbuf *mbufs[ONVM_BURST_SIZE];
	struct onvm_rx_result result = {0};
	uint16_t nb;

	nb = unlikely(wport->nb_ready != 0) ?
		     0 :
		     port->ops->rx_burst(port, queue, mbufs, ONVM_BURST_SIZE, &result);
	count_undelivered(worker, wport, &result);
	if (nb != 0 && onvm_capture_wants(&worker->dp->captures, ONVM_CAPTURE_PORT_IN))
		onvm_capture_port(&worker->dp->captures, worker->index, &worker->dp->memory,
				  port->id, ONVM_CAPTURE_PORT_IN, mbufs, nb);
	if (unlikely((__atomic_load_n(&port->fragments, __ATOMIC_RELAXED) != ONVM_FRAGMENTS_PASS ||
		      wport->nb_ready != 0) &&
		     !port->is_tunnel))
		nb = onvm_fragments_take(worker, wport, queue, mbufs, nb);
	if (nb == 0)
		return 0;
	for (uint16_t i = 0; i < nb; i++)
		wport->stats.rx_bytes += mbufs[i]->data_len;
	if (unlikely(port->is_tunnel)) {
		onvm_remote_take_in(worker, wport, queue, mbufs, nb);
		return nb;
	}
	/* Packets that were made when a larger one was cut did not come in. */
	wport->stats.rx += nb - result.nb_added;
	worker->stats.originated += result.nb_added;
	take_in(worker, wport, mbufs, nb);
	return nb;
}

uint32_t
onvm_ingress_receive(struct onvm_worker *worker)
{
	const bool is_paused = __atomic_load_n(&worker->dp->sources_paused, __ATOMIC_RELAXED);
	uint32_t nb_total = 0;

	for (uint32_t i = 0; i < worker->nb_wports; i++) {
		struct onvm_worker_port *wport = worker->wports[i];
		struct onvm_port *port = wport->port;

		if (wport->nb_ready == 0 &&
		    (port->is_finished || (is_paused && !port->only_answers)))
			continue;
		/* Each queue in its turn: held packets of one keep the others waiting. */
		for (uint16_t k = 0; k < wport->nb_queues && wport->nb_held == 0; k++) {
			if (port->can_wait && must_wait(worker, wport))
				break;
			if (++wport->next_queue >= wport->nb_queues)
				wport->next_queue = 0;
			nb_total += receive(worker, wport, wport->queues[wport->next_queue]);
		}
	}
	return nb_total;
}
