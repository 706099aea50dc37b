/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What becomes of a burst: descriptors out of the ring, packets through the stages, descriptors
 * into the ring.
 */

#include "host_priv.h"

#include <sched.h>
#include <unistd.h>

/** Turns against a full return ring before the core is given away. */
#define FULL_RING_SPINS 256

/* ---- packets the NF makes ---- */

struct onvm_pkt *
onvm_burst_originate(struct onvm_ctx *ctx)
{
	struct onvm_stage *stage = ctx->runtime;
	struct onvm_nf_host *host = stage->host;
	struct onvm_desc desc;
	struct onvm_pkt *pkt;

	if (host->control == NULL || host->nb_originated == ONVM_ORIGINATED_MAX ||
	    onvm_ring_dequeue_burst(&host->links[0].loan, &desc, 1) == 0 ||
	    desc.buffer >= host->reply.nb_buffers || desc.offset >= host->reply.buffer_stride)
		return NULL;
	pkt = &host->originated[host->nb_originated++];
	*pkt = (struct onvm_pkt){
		.data = host->memory + (uint64_t)desc.buffer * host->reply.buffer_stride +
			desc.offset,
		.buffer = desc.buffer,
		.headroom = desc.offset,
		.tailroom = (uint16_t)(host->reply.buffer_stride - desc.offset),
		.flags = ONVM_F_ORIGINATED,
		.verdict = ONVM_DROP,
		.stage = (uint16_t)stage->index,
	};
	return pkt;
}

/* ---- descriptors and packets ---- */

/**
 * Where slots are. Loops work with copies of this and of rings: stores into packets and descriptors
 * change none of them, which the compiler cannot know.
 */
struct slots {
	uint8_t *memory;
	uint32_t stride;
};

static ONVM_ALWAYS_INLINE struct slots
slots_of(const struct onvm_nf_host *host)
{
	return (struct slots){host->memory, host->reply.buffer_stride};
}

static_assert(offsetof(struct onvm_pkt, destination) == 24 &&
		      __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	      "unpack() stores the last five fields as one word");

static ONVM_ALWAYS_INLINE void
unpack(struct slots slots, const struct onvm_desc *desc, uint32_t worker, struct onvm_pkt *pkt)
{
	/* From `destination` to the end, little-endian, in one store. */
	const uint64_t rest = (uint64_t)ONVM_NEXT << 16 | (uint64_t)desc->flags << 24 |
			      (uint64_t)worker << 32;

	pkt->data = slots.memory + (uint64_t)desc->buffer * slots.stride + desc->offset;
	__builtin_prefetch(pkt->data, 1);
	pkt->buffer = desc->buffer;
	pkt->flow_hash = desc->flow_hash;
	pkt->length = desc->length;
	pkt->headroom = desc->offset;
	pkt->tailroom = (uint16_t)(slots.stride - desc->offset - desc->length);
	pkt->port = desc->port;
	memcpy(&pkt->destination, &rest, sizeof(rest));
}

static ONVM_ALWAYS_INLINE void
pack(struct slots slots, const struct onvm_pkt *pkt, uint32_t stage, struct onvm_desc *desc)
{
	const uint8_t *slot = slots.memory + (uint64_t)pkt->buffer * slots.stride;

	desc->buffer = pkt->buffer;
	desc->offset = (uint16_t)(pkt->data - slot);
	desc->length = pkt->length;
	desc->flow_hash = pkt->flow_hash;
	desc->port = pkt->destination;
	desc->verdict_stage = (uint8_t)((pkt->verdict & 15) | stage << 4);
	desc->flags = pkt->flags;
}

/* ---- returning ---- */

static void
wake_worker(struct onvm_nf_host *host, uint32_t worker)
{
	const uint64_t one = 1;

	/* E: pairs with F in the worker: it sets the word, then looks at the rings again. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&host->control->worker_sleeping[worker], __ATOMIC_RELAXED) == 0)
		return;
	__atomic_store_n(&host->control->worker_sleeping[worker], 0, __ATOMIC_RELAXED);
	if (write(host->links[worker].event_fd, &one, sizeof(one)) < 0)
		return; /* it is awake already: the counter is full */
}

static void
give_back(struct onvm_nf_host *host, uint32_t worker, const struct onvm_desc *descs, uint32_t nb)
{
	struct onvm_ring *ring = &host->links[worker].from_nf;
	uint32_t nb_done = onvm_ring_enqueue_burst(ring, descs, nb);

	host->given_back = onvm_cycles_now();
	for (uint32_t turn = 1; nb_done < nb; turn++) {
		if (host->reply.idle_policy == ONVM_IDLE_ADAPTIVE)
			wake_worker(host, worker);
		if (turn % FULL_RING_SPINS == 0) {
			/* A manager that is gone, or throws us out, will never make room. */
			if (ring->is_bad || !onvm_nf_host_is_alive(host))
				return;
			usleep(50);
		} else if (host->reply.idle_policy == ONVM_IDLE_ADAPTIVE) {
			sched_yield();
		} else {
			onvm_cpu_relax();
		}
		nb_done += onvm_ring_enqueue_burst(ring, descs + nb_done, nb - nb_done);
	}
	if (host->reply.idle_policy == ONVM_IDLE_ADAPTIVE)
		wake_worker(host, worker);
}

void
onvm_burst_return_originated(struct onvm_nf_host *host)
{
	struct onvm_desc descs[ONVM_ORIGINATED_MAX];
	const uint32_t nb = host->nb_originated;

	for (uint32_t i = 0; i < nb; i++)
		pack(slots_of(host), &host->originated[i], host->originated[i].stage, &descs[i]);
	host->nb_originated = 0;
	give_back(host, 0, descs, nb);
}

/* ---- stages ---- */

/**
 * Give packets with a verdict of their own back and close the gaps they leave.
 *
 * @return packets that go on
 */
static uint32_t
part(const struct onvm_nf_host *host, uint32_t stage, struct onvm_pkt *pkts, uint32_t nb,
     struct onvm_desc *returns, uint32_t *nb_returns)
{
	uint32_t nb_left = 0;

	/* Most stages keep most packets: up to the first that goes, nothing moves. */
	while (nb_left < nb && pkts[nb_left].verdict == ONVM_NEXT)
		nb_left++;
	for (uint32_t i = nb_left; i < nb; i++) {
		if (pkts[i].verdict == ONVM_NEXT)
			pkts[nb_left++] = pkts[i];
		else
			pack(slots_of(host), &pkts[i], stage, &returns[(*nb_returns)++]);
	}
	return nb_left;
}

/**
 * Run the packets of one direction through the stages.
 *
 * @return packets that have passed the last one, in @p pkts; the others are in host->returns, from
 *         *@p nb_returns on
 */
static uint32_t
run_stages(struct onvm_nf_host *host, struct onvm_pkt *pkts, uint32_t nb, bool is_reverse,
	   uint64_t time_ns, uint32_t *nb_returns)
{
	const uint32_t nb_stages = host->nb_stages;
	uint64_t begin = onvm_cycles_now();

	for (uint32_t turn = 0; turn < nb_stages && nb != 0; turn++) {
		const uint32_t index = is_reverse ? nb_stages - 1 - turn : turn;
		struct onvm_stage *stage = &host->stages[index];
		struct onvm_stage_stats *stats = &host->control->stage[index];
		uint64_t end;

		stage->ctx.now_ns = time_ns;
		stage->kernel(&stage->ctx, pkts, nb);
		stats->packets += nb;
		if (turn + 1 < nb_stages)
			nb = part(host, index, pkts, nb, host->returns, nb_returns);
		end = onvm_cycles_now();
		stats->busy_cycles += end - begin;
		begin = end;
	}
	return nb;
}

/** Give back host->returns, of which there are @p nb_returns, and @p nb packets of @p stage. */
static void
give_back_packets(struct onvm_nf_host *host, uint32_t worker, uint32_t nb_returns,
		  const struct onvm_pkt *pkts, uint32_t nb, uint32_t stage)
{
	struct onvm_ring *ring = &host->links[worker].from_nf;
	const struct slots slots = slots_of(host);

	if (nb_returns == 0 && onvm_ring_free_count(ring, nb) >= nb) {
		/* As mostly: without a copy in between. */
		const struct onvm_ring to = *ring;

		for (uint32_t i = 0; i < nb; i++)
			pack(slots, &pkts[i], stage, onvm_ring_at(&to, i));
		onvm_ring_publish(ring, nb);
		host->given_back = onvm_cycles_now();
		if (host->reply.idle_policy == ONVM_IDLE_ADAPTIVE)
			wake_worker(host, worker);
		return;
	}
	for (uint32_t i = 0; i < nb; i++)
		pack(slots, &pkts[i], stage, &host->returns[nb_returns + i]);
	give_back(host, worker, host->returns, nb_returns + nb);
}

uint32_t
onvm_burst_ready(struct onvm_nf_host *host, uint32_t worker)
{
	const uint32_t nb = onvm_ring_count(&host->links[worker].to_nf, host->burst_size);

	return nb < host->burst_size ? nb : host->burst_size;
}

void
onvm_burst_process(struct onvm_nf_host *host, uint32_t worker, uint32_t nb)
{
	const uint32_t last = host->nb_stages - 1;
	struct onvm_ring *ring = &host->links[worker].to_nf;
	const struct onvm_ring from = *ring;
	const struct slots slots = slots_of(host);
	struct onvm_pkt *pkts = host->pkts;
	uint32_t nb_forward = 0, forward = 0, reverse, nb_returns = 0;
	const uint64_t time_ns = onvm_now_ns();

	/* With one stage all come out of the same one, whichever way they go. */
	if (host->nb_stages == 1)
		nb_forward = nb;
	else
		for (uint32_t i = 0; i < nb; i++)
			nb_forward += (onvm_ring_at(&from, i)->flags & ONVM_F_REVERSE) == 0;
	if (nb_forward == nb || nb_forward == 0) {
		for (uint32_t i = 0; i < nb; i++)
			unpack(slots, onvm_ring_at(&from, i), worker, &pkts[i]);
		onvm_ring_consume(ring, nb);
		nb = run_stages(host, pkts, nb, nb_forward == 0, time_ns, &nb_returns);
		give_back_packets(host, worker, nb_returns, pkts, nb, nb_forward == 0 ? 0 : last);
		return;
	}
	/* Both directions in one burst: each passes the stages in its own order. */
	reverse = nb_forward;
	for (uint32_t i = 0; i < nb; i++) {
		const struct onvm_desc *desc = onvm_ring_at(&from, i);
		const bool is_reverse = (desc->flags & ONVM_F_REVERSE) != 0;

		unpack(slots, desc, worker, &pkts[is_reverse ? reverse++ : forward++]);
	}
	onvm_ring_consume(ring, nb);
	forward = run_stages(host, pkts, nb_forward, false, time_ns, &nb_returns);
	for (uint32_t i = 0; i < forward; i++)
		pack(slots, &pkts[i], last, &host->returns[nb_returns++]);
	reverse = run_stages(host, pkts + nb_forward, nb - nb_forward, true, time_ns, &nb_returns);
	give_back_packets(host, worker, nb_returns, pkts + nb_forward, reverse, 0);
}
