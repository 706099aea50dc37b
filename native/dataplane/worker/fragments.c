/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/fragments.h"

#include <string.h>
#include <time.h>

#include <rte_byteorder.h>
#include <rte_prefetch.h>

#define PREFETCH_AHEAD 4

/** Where a burst goes. */
struct sink {
	struct onvm_worker *worker;
	struct onvm_worker_port *wport;
	struct rte_mbuf **mbufs;
	uint16_t nb, max;
};

static struct onvm_reassembly *
reassembly_of(const struct onvm_worker *worker)
{
	/* P2: pairs with the release store P1 in control/services.c. */
	return __atomic_load_n(&worker->dp->reassembly, __ATOMIC_ACQUIRE);
}

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void
count_lost(void *arg, uint16_t port, enum onvm_drop reason, uint32_t nb)
{
	const struct sink *const sink = arg;

	/* It is there: the fragments of a port that closes are forgotten before. */
	sink->worker->dp->wports[sink->worker->index][port]->stats.rx += nb;
	sink->worker->stats.drops[reason] += nb;
}

/* They came in, and so did the datagram, which is counted with the packets of its burst. */
static void
count_joined(void *arg, uint16_t port, uint32_t nb)
{
	count_lost(arg, port, ONVM_DROP_REASSEMBLED, nb);
}

static void
put_ready(void *arg, struct rte_mbuf *mbuf)
{
	struct sink *const sink = arg;

	if (likely(sink->nb < sink->max)) {
		sink->mbufs[sink->nb++] = mbuf;
		return;
	}
	if (sink->wport->nb_ready < RTE_DIM(sink->wport->ready)) {
		sink->wport->ready[sink->wport->nb_ready++] = mbuf;
		return;
	}
	rte_pktmbuf_free(mbuf);
	count_lost(arg, sink->wport->port->id, ONVM_DROP_FRAGMENTS_FULL, 1);
}

/** Whether a packet may be a fragment: all but those that most packets are. */
static inline bool
may_be_fragment(const struct rte_mbuf *mbuf)
{
	const uint8_t *const data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	uint16_t ethertype, field;

	if (unlikely(mbuf->data_len < 14 + 20))
		return false; /* not even an empty one */
	memcpy(&ethertype, data + 12, sizeof(ethertype));
	if (likely(ethertype == RTE_BE16(ONVM_ETHERTYPE_IPV4))) {
		memcpy(&field, data + 20, sizeof(field));
		return (field & RTE_BE16(0x3fff)) != 0;
	}
	if (ethertype == RTE_BE16(ONVM_ETHERTYPE_IPV6))
		return data[20] != ONVM_PROTO_TCP && data[20] != ONVM_PROTO_UDP &&
		       data[20] != ONVM_PROTO_ICMPV6;
	return onvm_ethertype_is_vlan(rte_be_to_cpu_16(ethertype));
}

/** The first fragment of a burst, with its headers; @p nb: there is none. */
static uint16_t
first_fragment(struct rte_mbuf **mbufs, uint16_t begin, uint16_t nb, struct onvm_headers *headers)
{
	for (uint16_t i = begin; i < nb; i++) {
		if (i + PREFETCH_AHEAD < nb)
			rte_prefetch0(rte_pktmbuf_mtod(mbufs[i + PREFETCH_AHEAD], void *));
		if (unlikely(may_be_fragment(mbufs[i])) &&
		    onvm_parse(rte_pktmbuf_mtod(mbufs[i], const uint8_t *), mbufs[i]->data_len,
			       headers) == ONVM_L3_OK &&
		    onvm_headers_is_fragment(headers))
			return i;
	}
	return nb;
}

/** What had no place in the last burst, the first first. */
static void
put_rest(struct sink *sink)
{
	struct onvm_worker_port *const wport = sink->wport;
	const uint16_t nb = RTE_MIN(wport->nb_ready, sink->max);

	memcpy(sink->mbufs, wport->ready, nb * sizeof(*wport->ready));
	sink->nb = nb;
	wport->nb_ready = (uint16_t)(wport->nb_ready - nb);
	memmove(wport->ready, wport->ready + nb, wport->nb_ready * sizeof(*wport->ready));
}

uint16_t
onvm_fragments_take(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t queue,
		    struct rte_mbuf **mbufs, uint16_t nb)
{
	const enum onvm_fragments mode =
		(enum onvm_fragments)__atomic_load_n(&wport->port->fragments, __ATOMIC_RELAXED);
	struct sink sink = {worker, wport, mbufs, 0, ONVM_BURST_SIZE};
	const struct onvm_reassembly_out out = {&sink, put_ready, count_lost, count_joined};
	struct rte_mbuf *given[ONVM_BURST_SIZE];
	struct onvm_headers headers;
	uint64_t time_ns;
	uint16_t next;

	if (unlikely(wport->nb_ready != 0)) {
		ONVM_ASSERT(nb == 0);
		put_rest(&sink);
		return sink.nb;
	}
	for (uint16_t i = 0; i < nb && i < PREFETCH_AHEAD; i++)
		rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], void *));
	next = mode == ONVM_FRAGMENTS_PASS ? nb : first_fragment(mbufs, 0, nb, &headers);
	if (likely(next == nb))
		return nb;
	memcpy(given, mbufs, nb * sizeof(*mbufs));
	sink.nb = next;
	time_ns = now_ns();
	while (next < nb) {
		const uint16_t begin = (uint16_t)(next + 1);

		onvm_reassembly_take(reassembly_of(worker), given[next], &headers, wport->port->id,
				     mode, wport->port->pools[queue], time_ns, &out);
		next = first_fragment(given, begin, nb, &headers);
		for (uint16_t i = begin; i < next; i++)
			put_ready(&sink, given[i]);
	}
	return sink.nb;
}

uint16_t
onvm_fragment_take(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t queue,
		   struct rte_mbuf *mbuf, struct rte_mbuf **ready)
{
	const enum onvm_fragments mode =
		(enum onvm_fragments)__atomic_load_n(&wport->port->fragments, __ATOMIC_RELAXED);
	struct sink sink = {worker, wport, ready, 0, ONVM_PIECES_MAX};
	const struct onvm_reassembly_out out = {&sink, put_ready, count_lost, count_joined};
	struct onvm_headers headers;

	if (mode == ONVM_FRAGMENTS_PASS || first_fragment(&mbuf, 0, 1, &headers) != 0)
		put_ready(&sink, mbuf);
	else
		onvm_reassembly_take(reassembly_of(worker), mbuf, &headers, wport->port->id, mode,
				     wport->port->pools[queue], now_ns(), &out);
	return sink.nb;
}

void
onvm_fragments_expire(struct onvm_worker *worker)
{
	struct onvm_reassembly *const reassembly = reassembly_of(worker);
	struct sink sink = {.worker = worker};
	const struct onvm_reassembly_out out = {&sink, put_ready, count_lost, count_joined};

	if (likely(reassembly == NULL) || onvm_reassembly_count(reassembly) == 0)
		return;
	onvm_reassembly_expire(reassembly, now_ns(), &out);
	for (uint32_t i = 0; i < worker->nb_wports; i++) {
		const struct onvm_port *const port = worker->wports[i]->port;

		/* Nothing more will come. */
		if (__atomic_load_n(&port->is_finished, __ATOMIC_ACQUIRE))
			onvm_reassembly_forget(reassembly, port->id, ONVM_DROP_FRAGMENT_TIMEOUT,
					       &out);
		else if (__atomic_load_n(&worker->dp->sources_paused, __ATOMIC_RELAXED))
			onvm_reassembly_forget(reassembly, port->id, ONVM_DROP_STOPPED, &out);
	}
}

void
onvm_fragments_forget(struct onvm_worker *worker, struct onvm_worker_port *wport)
{
	struct onvm_reassembly *const reassembly = reassembly_of(worker);
	struct sink sink = {.worker = worker};
	const struct onvm_reassembly_out out = {&sink, put_ready, count_lost, count_joined};

	if (reassembly == NULL)
		return;
	onvm_reassembly_forget(reassembly, wport->port->id, ONVM_DROP_STOPPED, &out);
	for (uint16_t i = 0; i < wport->nb_ready; i++)
		rte_pktmbuf_free(wport->ready[i]);
	if (wport->nb_ready != 0)
		count_lost(&sink, wport->port->id, ONVM_DROP_STOPPED, wport->nb_ready);
	wport->nb_ready = 0;
}
