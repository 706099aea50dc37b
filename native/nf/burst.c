/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A burst in an NF host: descriptors out of the ring, packets through the stages, descriptors into
 * the ring.
 */

#include "burst.h"

#include <sched.h>
#include <unistd.h>

#include "attach.h"
#include "child.h"
#include "held.h"
#include "permissions.h"

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

	if (!stage->may_originate || host->control == NULL ||
	    host->nb_originated == ONVM_ORIGINATED_MAX ||
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
	uint32_t first_large;
	uint32_t large_bytes;
};

static ONVM_ALWAYS_INLINE struct slots
slots_of(const struct onvm_nf_host *host)
{
	return (struct slots){host->memory, host->reply.buffer_stride, host->reply.first_large,
			      host->reply.large_bytes};
}

/** A packet's copy of its descriptor: two words, in which a field is at the same place. */
#define WORDS_AT offsetof(struct onvm_pkt, buffer)
#define SAME_PLACE(pkt_field, desc_field)                                        \
	static_assert(offsetof(struct onvm_pkt, pkt_field) ==                    \
			      WORDS_AT + offsetof(struct onvm_desc, desc_field), \
		      "unpack() and pack() copy words")
SAME_PLACE(buffer, buffer);
SAME_PLACE(headroom, offset);
SAME_PLACE(length, length);
SAME_PLACE(flow_hash, flow_hash);
SAME_PLACE(port, port);
SAME_PLACE(verdict, verdict_stage);
SAME_PLACE(flags, flags);
static_assert(offsetof(struct onvm_pkt, destination) == 24 &&
		      __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	      "unpack() stores the last four fields as one word, pack() makes one");

/** The verdict is ONVM_NEXT: the manager sends descriptors with it. */
static ONVM_ALWAYS_INLINE void
unpack(struct slots slots, const struct onvm_desc *desc, uint32_t worker, struct onvm_pkt *pkt)
{
	uint8_t *data = slots.memory + (uint64_t)desc->buffer * slots.stride + desc->offset;
	const uint32_t bytes = desc->buffer < slots.first_large ? slots.stride : slots.large_bytes;
	const uint16_t tailroom = (uint16_t)(bytes - desc->offset - desc->length);
	const uint64_t rest = (uint64_t)tailroom << 16 | (uint64_t)worker << 32;

	__builtin_prefetch(data, 1);
	pkt->data = data;
	memcpy((uint8_t *)pkt + WORDS_AT, desc, sizeof(*desc));
	memcpy(&pkt->destination, &rest, sizeof(rest));
}

static ONVM_ALWAYS_INLINE void
pack(const struct onvm_pkt *pkt, uint32_t stage, struct onvm_desc *desc)
{
	/*
	 * The first word as it is. The second by fields: the last stage has just stored a byte in
	 * it, and a load of more than that byte waits until the store is done.
	 */
	const uint64_t second = (uint64_t)pkt->flow_hash | (uint64_t)pkt->destination << 32 |
				(uint64_t)((pkt->verdict & 15) | stage << 4) << 48 |
				(uint64_t)pkt->flags << 56;

	memcpy(desc, &pkt->buffer, 8);
	memcpy(&desc->flow_hash, &second, sizeof(second));
}

/* ---- returning ---- */

static void
wake_worker(struct onvm_nf_host *host, uint32_t worker)
{
	const uint64_t one = 1;

	/* S4: pairs with the fence S3 in the worker: it sets the word, then looks at the rings. */
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
		host->control->loops++; /* it is the worker that makes no progress */
		if (host->reply.idle_policy == ONVM_IDLE_ADAPTIVE)
			wake_worker(host, worker);
		if (turn % FULL_RING_SPINS == 0) {
			/* A manager that is gone, or detaches us, will never empty the ring. */
			if (ring->is_bad || !onvm_nf_host_is_alive(host))
				return;
			usleep(50);
		} else if (onvm_nf_host_is_busy(host)) {
			onvm_cpu_relax();
		} else {
			sched_yield();
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
		pack(&host->originated[i], host->originated[i].stage, &descs[i]);
	host->nb_originated = 0;
	give_back(host, 0, descs, nb);
}

/* ---- stages ---- */

/**
 * Put packets down after those that are in host->returns.
 *
 * There and not in the ring itself: the worker's core reads ahead in the ring and so takes lines
 * away that are being written; while such stores wait, no later one gets on. One copy into the ring
 * needs few stores (80 instead of 85 cycles a packet between distant cores).
 */
static ONVM_ALWAYS_INLINE void
put_down(struct onvm_nf_host *host, const struct onvm_pkt *pkts, uint32_t nb, uint32_t stage)
{
	struct onvm_desc *desc = &host->returns[host->nb_returns];

	host->nb_returns += nb;
	for (const struct onvm_pkt *end = pkts + nb; pkts != end; pkts++)
		pack(pkts, stage, desc++);
}

/** Packets up to the first that does not go on; most stages keep most packets. */
static ONVM_ALWAYS_INLINE struct onvm_pkt *
first_leaving(struct onvm_pkt *pkt, const struct onvm_pkt *end)
{
	/* Four by four while they all go on. */
	static_assert(ONVM_NEXT == 0, "verdicts are or-ed");
	while (end - pkt >= 4 &&
	       (pkt[0].verdict | pkt[1].verdict | pkt[2].verdict | pkt[3].verdict) == ONVM_NEXT)
		pkt += 4;
	while (pkt != end && pkt->verdict == ONVM_NEXT)
		pkt++;
	return pkt;
}

/**
 * Put packets with a verdict of their own down and close the gaps they leave.
 *
 * @return packets that go on
 */
static uint32_t
part(struct onvm_nf_host *host, uint32_t stage, struct onvm_pkt *pkts, uint32_t nb)
{
	const struct onvm_pkt *end = pkts + nb;
	struct onvm_pkt *left = first_leaving(pkts, end);

	for (const struct onvm_pkt *pkt = left; pkt != end; pkt++) {
		if (pkt->verdict == ONVM_NEXT)
			*left++ = *pkt;
		else
			put_down(host, pkt, 1, stage);
	}
	return (uint32_t)(left - pkts);
}

/** Run the packets of one direction through the stages from @p first on, and put them down. */
static void
run_stages(struct onvm_nf_host *host, struct onvm_pkt *pkts, uint32_t nb, bool is_reverse,
	   uint64_t time_ns, uint32_t first)
{
	const uint32_t nb_stages = host->nb_stages;
	const uint32_t last = is_reverse ? 0 : nb_stages - 1;
	uint64_t begin = onvm_cycles_now();

	for (uint32_t turn = first; turn < nb_stages && nb != 0; turn++) {
		const uint32_t index = is_reverse ? nb_stages - 1 - turn : turn;
		struct onvm_stage *stage = &host->stages[index];
		struct onvm_stage_stats *stats = &host->control->stage[index];
		uint64_t end;

		stage->ctx.now_ns = time_ns;
		stage->ctx.is_first_stage = turn == 0;
		stage->ctx.is_last_stage = index == last;
		stage->kernel(&stage->ctx, pkts, nb);
		if (__builtin_expect(stage->forbidden & (ONVM_MAY_DROP | ONVM_MAY_NOT_RETURN), 0)) {
			if (host->is_child)
				onvm_end_child();
			onvm_stage_undo_drops(stage, pkts, nb);
		}
		stats->packets += nb;
		if (stage->held != NULL)
			nb = onvm_held_settle(stage->held, pkts, nb);
		if (index != last)
			nb = part(host, index, pkts, nb);
		end = onvm_cycles_now();
		stats->busy_cycles += end - begin;
		begin = end;
	}
	put_down(host, pkts, nb, last);
}

uint32_t
onvm_burst_ready(struct onvm_nf_host *host, uint32_t worker)
{
	const uint32_t nb = onvm_ring_count(&host->links[worker].to_nf, host->burst_size);

	return nb < host->burst_size ? nb : host->burst_size;
}

/** Both directions in one burst: each passes the stages in its own order. */
static void
process_mixed(struct onvm_nf_host *host, uint32_t worker, uint32_t nb, uint64_t time_ns)
{
	struct onvm_ring *ring = &host->links[worker].to_nf;
	const struct slots slots = slots_of(host);
	struct onvm_pkt *pkts = host->pkts;
	uint32_t nb_forward = 0, forward = 0, reverse;

	for (uint32_t i = 0; i < nb; i++)
		nb_forward += (onvm_ring_at(ring, i)->flags & ONVM_F_REVERSE) == 0;
	reverse = nb_forward;
	for (uint32_t i = 0; i < nb; i++) {
		const struct onvm_desc *desc = onvm_ring_at(ring, i);
		const bool is_reverse = (desc->flags & ONVM_F_REVERSE) != 0;

		unpack(slots, desc, worker, &pkts[is_reverse ? reverse++ : forward++]);
	}
	onvm_ring_consume(ring, nb);
	run_stages(host, pkts, nb_forward, false, time_ns, 0);
	run_stages(host, pkts + nb_forward, nb - nb_forward, true, time_ns, 0);
}

void
onvm_burst_process(struct onvm_nf_host *host, uint32_t worker, uint32_t nb)
{
	struct onvm_ring *ring = &host->links[worker].to_nf;
	const struct slots slots = slots_of(host);
	const uint64_t time_ns = onvm_now_ns();
	struct onvm_pkt *pkt = host->pkts;
	const struct onvm_pkt *end = pkt + nb;
	uint8_t in_all = ONVM_F_REVERSE, in_some = 0;

	onvm_keep_epoch(host, time_ns);
	host->nb_returns = 0;
	/* In one piece, or two where the ring ends. */
	while (pkt != end) {
		const uint32_t nb_left = (uint32_t)(end - pkt);
		const struct onvm_desc *desc = onvm_ring_at(ring, nb - nb_left);
		const uint32_t nb_straight = ring->mask + 1 - (uint32_t)(desc - ring->shared->desc);
		const struct onvm_pkt *stop = nb_left < nb_straight ? end : pkt + nb_straight;

		for (; pkt != stop; pkt++, desc++) {
			unpack(slots, desc, worker, pkt);
			in_all &= desc->flags;
			in_some |= desc->flags;
		}
	}
	/* With one stage all come out of the same one, whichever way they go. */
	if (in_all == (in_some & ONVM_F_REVERSE) || host->nb_stages == 1) {
		onvm_ring_consume(ring, nb);
		run_stages(host, host->pkts, nb, in_all != 0, time_ns, 0);
	} else {
		process_mixed(host, worker, nb, time_ns);
	}
	give_back(host, worker, host->returns, host->nb_returns);
}

/* ---- released packets ---- */

/** How many packets at the start of @p pkts go the same way as the first one. */
static uint32_t
alike(const struct onvm_pkt *pkts, uint32_t nb)
{
	uint32_t i = 1;

	while (i < nb && pkts[i].worker == pkts[0].worker &&
	       ((pkts[i].flags ^ pkts[0].flags) & ONVM_F_REVERSE) == 0)
		i++;
	return i;
}

uint32_t
onvm_burst_return_released(struct onvm_nf_host *host)
{
	uint32_t nb_done = 0, nb;

	for (uint32_t index = 0; index < host->nb_stages; index++) {
		const struct onvm_stage *stage = &host->stages[index];

		if (stage->held == NULL)
			continue;
		while ((nb = onvm_held_take(stage->held, host->pkts, host->burst_size)) != 0) {
			nb_done += nb;
			host->nb_returns = 0;
			for (uint32_t first = 0; first < nb;) {
				struct onvm_pkt *pkts = &host->pkts[first];
				const uint32_t nb_alike = alike(pkts, nb - first);
				const bool is_reverse = (pkts->flags & ONVM_F_REVERSE) != 0;
				const uint32_t worker = pkts->worker;
				const uint32_t nb_on = part(host, index, pkts, nb_alike);
				const uint32_t turn = is_reverse ? host->nb_stages - index :
								   index + 1;

				/* Behind the last stage there are no turns: they are put down. */
				run_stages(host, pkts, nb_on, is_reverse, onvm_now_ns(), turn);
				give_back(host, worker, host->returns, host->nb_returns);
				host->nb_returns = 0;
				first += nb_alike;
			}
		}
		host->control->stage[index].held = onvm_held_count(stage->held);
		host->control->stage[index].hold_refused = onvm_held_refused(stage->held);
	}
	return nb_done;
}
