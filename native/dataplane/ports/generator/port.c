/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port "gen": realistic traffic, and the servers that answer it.
 *
 * As client (client.c) it is the near end of a chain, as server (server.c) the far end. It takes,
 * checks and answers packets as soon as the chain sends them, and gives packets when the worker
 * reads.
 *
 * Threads: one worker receives, all may send, with a lock per port. A receiver that finds it taken
 * comes back later; a sender waits for the length of a burst.
 */

#include "ports/kinds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_spinlock.h>

#include "ports/generator/client.h"
#include "ports/generator/neighbour.h"
#include "ports/generator/packet.h"
#include "ports/generator/server.h"

/** Connections are looked at for expiry so often, so many at a time: all within 0.5 s. */
#define EXPIRY_LOOKS_PER_S 10000
#define EXPIRY_SLOTS_MIN 8
#define EXPIRY_SLOTS_PART 4096
/** A client that only waits is read again after 1 / this of a second. */
#define WAITING_LOOKS_PER_S 1000

/** Answers to neighbours that wait for being read; more questions go unanswered. */
#define ANSWERS_MAX 16

struct gen_port {
	rte_spinlock_t lock;
	uint32_t nb_answers;
	struct rte_mbuf *answers[ANSWERS_MAX];
	bool is_server;
	struct onvm_pace pace;
	uint64_t expired_at; /**< TSC of the last look */
	union {
		struct onvm_gen_client client;
		struct onvm_gen_server server;
	};
};

static void
look_for_expired(struct gen_port *own, uint64_t now)
{
	const uint64_t nb_missed = (now - own->expired_at) * EXPIRY_LOOKS_PER_S / own->pace.hz;
	const uint32_t nb_slots = own->client.nb_slots;

	if (nb_missed == 0)
		return;
	own->expired_at = now;
	onvm_gen_client_expire(&own->client,
			       (uint32_t)RTE_MIN((EXPIRY_SLOTS_MIN + nb_slots / EXPIRY_SLOTS_PART) *
							 nb_missed,
						 (uint64_t)nb_slots),
			       now);
}

/* Take what neighbours say out of a burst. @return packets that are left */
static uint16_t
hear_neighbours(struct gen_port *own, struct rte_mbuf **mbufs, uint16_t nb)
{
	uint16_t nb_left = 0;

	for (uint16_t i = 0; i < nb; i++) {
		const enum onvm_gen_neighbour heard = onvm_gen_neighbour_answer(mbufs[i]);

		if (heard == ONVM_GEN_TRAFFIC)
			mbufs[nb_left++] = mbufs[i];
		else if (heard == ONVM_GEN_ANSWERED && own->nb_answers < ANSWERS_MAX)
			own->answers[own->nb_answers++] = mbufs[i];
		else
			rte_pktmbuf_free(mbufs[i]);
	}
	return nb_left;
}

static uint16_t
gen_rx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb,
       struct onvm_rx_result *result)
{
	struct gen_port *own = port->priv;
	const uint64_t now = rte_rdtsc();
	bool is_finished;

	RTE_SET_USED(result);
	if (!rte_spinlock_trylock(&own->lock))
		return 0;
	if (own->nb_answers != 0 && nb != 0) {
		mbufs[0] = own->answers[--own->nb_answers];
		rte_spinlock_unlock(&own->lock);
		return 1;
	}
	nb = onvm_pace_due(&own->pace, now, nb);
	if (own->is_server) {
		nb = (uint16_t)onvm_gen_server_give(&own->server, mbufs, nb);
		is_finished = own->server.head == own->server.tail;
	} else {
		look_for_expired(own, now);
		nb = (uint16_t)onvm_gen_client_give(&own->client, port->pools[queue], mbufs, nb,
						    now);
		is_finished = own->client.nb_active == 0;
	}
	own->pace.nb_sent += nb;
	if (is_finished)
		__atomic_store_n(&port->is_finished, 1, __ATOMIC_RELEASE);
	rte_spinlock_unlock(&own->lock);
	return nb;
}

static uint16_t
gen_tx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	struct gen_port *own = port->priv;
	uint16_t nb_traffic;

	RTE_SET_USED(queue);
	rte_spinlock_lock(&own->lock);
	nb_traffic = hear_neighbours(own, mbufs, nb);
	if (own->is_server) {
		onvm_gen_server_take(&own->server, mbufs, nb_traffic);
		if (own->server.head != own->server.tail || own->nb_answers != 0)
			__atomic_store_n(&port->is_finished, 0, __ATOMIC_RELEASE);
	} else {
		onvm_gen_client_take(&own->client, mbufs, nb_traffic, rte_rdtsc());
		if (own->client.nb_active == 0)
			__atomic_store_n(&port->is_finished, 1, __ATOMIC_RELEASE);
	}
	rte_spinlock_unlock(&own->lock);
	return nb;
}

static uint64_t
gen_next_due(struct onvm_port *port, uint16_t queue)
{
	const struct gen_port *own = port->priv;

	RTE_SET_USED(queue);
	if (own->nb_answers != 0)
		return rte_rdtsc();
	if (!own->is_server && !onvm_gen_client_is_ready(&own->client))
		return rte_rdtsc() + own->client.hz / WAITING_LOOKS_PER_S;
	return onvm_pace_next(&own->pace);
}

static void
gen_close(struct onvm_port *port)
{
	struct gen_port *own = port->priv;

	rte_pktmbuf_free_bulk(own->answers, own->nb_answers);
	if (own->is_server)
		onvm_gen_server_free(&own->server);
	else
		onvm_gen_client_free(&own->client);
	free(own);
}

static const struct onvm_port_ops gen_ops = {
	.rx_burst = gen_rx,
	.tx_burst = gen_tx,
	.next_due = gen_next_due,
	.close = gen_close,
};

int
onvm_port_gen_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		   char *error, size_t error_size)
{
	const struct onvm_gen_options *options = kind_options;
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	struct gen_port *own = aligned_alloc(64, RTE_ALIGN(sizeof(*own), 64));
	int rc;

	if (own == NULL)
		return -ENOMEM;
	memset(own, 0, sizeof(*own));
	own->expired_at = rte_rdtsc();
	onvm_gen_pattern_init();
	rte_spinlock_init(&own->lock);
	own->is_server = options->is_server != 0;
	own->pace = (struct onvm_pace){.rate_pps = options->rate_pps,
				       .limit = UINT64_MAX,
				       .hz = rte_get_tsc_hz()};
	if (own->is_server)
		rc = onvm_gen_server_init(&own->server, port->memory->nb_buffers, room);
	else
		rc = onvm_gen_client_init(&own->client, options, room, error, error_size);
	if (rc != 0) {
		free(own);
		return rc;
	}
	port->ops = &gen_ops;
	port->priv = own;
	port->nb_queues = 1;
	port->can_wait = options->rate_pps == 0;
	/* With one worker nothing comes in while it sleeps; with several another may send. */
	port->is_polled = nb_workers > 1;
	port->only_answers = own->is_server;
	port->is_finished = own->is_server;
	return 0;
}

int
onvm_port_gen_read(const struct onvm_port *port, struct onvm_dp_gen_stats *stats)
{
	const struct gen_port *own = port->priv;

	if (port->ops != &gen_ops)
		return -EINVAL;
	/* Without the lock: a reader never holds up a worker; each counter is whole. */
	if (own->is_server) {
		*stats = own->server.stats;
		stats->nb_active = own->server.head - own->server.tail;
	} else {
		*stats = own->client.stats;
		stats->nb_active = own->client.nb_active;
	}
	stats->is_finished = __atomic_load_n(&port->is_finished, __ATOMIC_ACQUIRE);
	return 0;
}
