/* SPDX-License-Identifier: Apache-2.0 */
#include "host_priv.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#define cycles_now() __rdtsc()
#define cpu_relax() _mm_pause()
#else
#define cycles_now() now_ns()
#define cpu_relax() __asm__ volatile("yield" ::: "memory")
#endif

/**
 * Idle turns before an adaptive host sleeps. A sleep that ends soon was not worth its wake-up:
 * the next one comes later. One that lasts brings the turns back down, so that a host with little
 * to do, or one that shares its core, gives it away at once.
 */
#define IDLE_SPINS_MIN 64
#define IDLE_SPINS_MAX 2048
/** About what a wake-up costs on a virtual machine. */
#define SHORT_SLEEP_NS 40000
/** Longest sleep, after which the socket is looked at: a dead manager cannot wake us. */
#define SLEEP_MAX_NS 100000000ull
/** Idle turns between two looks at the socket by a host that never sleeps. */
#define BUSY_TURNS_PER_LOOK (1u << 20)
/** Turns against a full return ring before the core is given away. */
#define FULL_RING_SPINS 256

static inline uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* ---- packets the NF makes ---- */

static struct onvm_pkt *
originate(struct onvm_ctx *ctx)
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

static ONVM_ALWAYS_INLINE void
unpack(const struct onvm_nf_host *host, const struct onvm_desc *desc, uint32_t worker,
       struct onvm_pkt *pkt)
{
	const uint32_t stride = host->reply.buffer_stride;

	pkt->data = host->memory + (uint64_t)desc->buffer * stride + desc->offset;
	__builtin_prefetch(pkt->data, 1);
	pkt->buffer = desc->buffer;
	pkt->flow_hash = desc->flow_hash;
	pkt->length = desc->length;
	pkt->headroom = desc->offset;
	pkt->tailroom = (uint16_t)(stride - desc->offset - desc->length);
	pkt->port = desc->port;
	pkt->destination = 0;
	pkt->verdict = ONVM_NEXT;
	pkt->flags = desc->flags;
	pkt->worker = (uint16_t)worker;
	pkt->stage = 0;
}

static ONVM_ALWAYS_INLINE void
pack(const struct onvm_nf_host *host, const struct onvm_pkt *pkt, uint32_t stage,
     struct onvm_desc *desc)
{
	const uint8_t *slot = host->memory + (uint64_t)pkt->buffer * host->reply.buffer_stride;

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

	host->given_back = cycles_now();
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
			cpu_relax();
		}
		nb_done += onvm_ring_enqueue_burst(ring, descs + nb_done, nb - nb_done);
	}
	if (host->reply.idle_policy == ONVM_IDLE_ADAPTIVE)
		wake_worker(host, worker);
}

static void
give_back_originated(struct onvm_nf_host *host)
{
	struct onvm_desc descs[ONVM_ORIGINATED_MAX];
	const uint32_t nb = host->nb_originated;

	for (uint32_t i = 0; i < nb; i++)
		pack(host, &host->originated[i], host->originated[i].stage, &descs[i]);
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
			pack(host, &pkts[i], stage, &returns[(*nb_returns)++]);
	}
	return nb_left;
}

/** Run the packets of one direction through the stages; @return descriptors in @p returns. */
static uint32_t
run_stages(struct onvm_nf_host *host, struct onvm_pkt *pkts, uint32_t nb, bool is_reverse,
	   uint64_t time_ns, struct onvm_desc *returns)
{
	const uint32_t nb_stages = host->nb_stages;
	uint64_t begin = cycles_now();
	uint32_t nb_returns = 0;

	for (uint32_t turn = 0; turn < nb_stages && nb != 0; turn++) {
		const uint32_t index = is_reverse ? nb_stages - 1 - turn : turn;
		struct onvm_stage *stage = &host->stages[index];
		struct onvm_stage_stats *stats = &host->control->stage[index];
		uint64_t end;

		stage->ctx.now_ns = time_ns;
		stage->kernel(&stage->ctx, pkts, nb);
		stats->packets += nb;
		if (turn + 1 == nb_stages) {
			for (uint32_t i = 0; i < nb; i++)
				pack(host, &pkts[i], index, &returns[nb_returns + i]);
			nb_returns += nb;
		} else {
			nb = part(host, index, pkts, nb, returns, &nb_returns);
		}
		end = cycles_now();
		stats->busy_cycles += end - begin;
		begin = end;
	}
	return nb_returns;
}

static void
process_burst(struct onvm_nf_host *host, uint32_t worker, uint32_t nb)
{
	struct onvm_pkt *pkts = host->pkts;
	uint32_t nb_forward = 0, nb_returns;
	const uint64_t time_ns = now_ns();

	for (uint32_t i = 0; i < nb; i++)
		nb_forward += (host->descs[i].flags & ONVM_F_REVERSE) == 0;
	if (host->nb_stages == 1 || nb_forward == nb || nb_forward == 0) {
		for (uint32_t i = 0; i < nb; i++)
			unpack(host, &host->descs[i], worker, &pkts[i]);
		nb_returns = run_stages(host, pkts, nb, nb_forward == 0, time_ns, host->returns);
	} else {
		/* Both directions in one burst: each passes the stages in its own order. */
		uint32_t forward = 0, reverse = nb_forward;

		for (uint32_t i = 0; i < nb; i++) {
			const bool is_reverse = (host->descs[i].flags & ONVM_F_REVERSE) != 0;

			unpack(host, &host->descs[i], worker,
			       &pkts[is_reverse ? reverse++ : forward++]);
		}
		nb_returns = run_stages(host, pkts, nb_forward, false, time_ns, host->returns);
		nb_returns += run_stages(host, pkts + nb_forward, nb - nb_forward, true, time_ns,
					 host->returns + nb_returns);
	}
	give_back(host, worker, host->returns, nb_returns);
}

/* ---- the loop ---- */

/** Count a turn that had packets. */
static inline void
count_turn(struct onvm_turn_sums *sums, uint64_t nb, uint64_t cycles)
{
	sums->turns++;
	sums->packets += nb;
	sums->packets_squared += nb * nb;
	sums->cycles += cycles;
	sums->cycles_by_packets += cycles * nb;
}

static bool
has_work(struct onvm_nf_host *host)
{
	for (uint32_t worker = 0; worker < host->reply.nb_workers; worker++)
		if (onvm_ring_count(&host->links[worker].to_nf, 1) != 0)
			return true;
	return __atomic_load_n(&host->control->attention, __ATOMIC_ACQUIRE) !=
		       host->attention_seen ||
	       __atomic_load_n(&host->interrupt, __ATOMIC_ACQUIRE) != 0;
}

/** Wait for work; @return how many idle turns to spend before the next sleep. */
static uint32_t
sleep_until(struct onvm_nf_host *host, uint64_t deadline_ns, uint32_t nb_spins)
{
	uint32_t *word = &host->control->sleeping;
	const uint64_t time_ns = now_ns();
	uint64_t pause_ns = SLEEP_MAX_NS;
	struct timespec timeout;

	if (deadline_ns != 0 && deadline_ns <= time_ns)
		return nb_spins;
	if (deadline_ns != 0 && deadline_ns - time_ns < pause_ns)
		pause_ns = deadline_ns - time_ns;
	timeout.tv_sec = (time_t)(pause_ns / 1000000000ull);
	timeout.tv_nsec = (long)(pause_ns % 1000000000ull);
	/* G: pairs with H in the worker: it enqueues, then looks at the word. */
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!has_work(host)) {
		host->control->sleeps++;
		syscall(SYS_futex, word, FUTEX_WAIT, 1, &timeout, NULL, 0);
	}
	__atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
	if (now_ns() - time_ns < SHORT_SLEEP_NS)
		return nb_spins * 2 < IDLE_SPINS_MAX ? nb_spins * 2 : IDLE_SPINS_MAX;
	return nb_spins / 2 > IDLE_SPINS_MIN ? nb_spins / 2 : IDLE_SPINS_MIN;
}

int
onvm_nf_host_run(struct onvm_nf_host *host, uint64_t deadline_ns)
{
	const bool is_busy = host->reply.idle_policy == ONVM_IDLE_BUSY;
	uint32_t nb_idle = 0, nb_spins = IDLE_SPINS_MIN;
	uint64_t idle_since = 0, turn_began = 0;

	if (host->control == NULL)
		return ONVM_EVENT_DETACHED;
	for (;;) {
		uint32_t nb_done = 0;

		host->control->loops++;
		for (uint32_t worker = 0; worker < host->reply.nb_workers; worker++) {
			const uint32_t nb = onvm_ring_dequeue_burst(&host->links[worker].to_nf,
								    host->descs, host->burst_size);

			if (nb == 0)
				continue;
			if (turn_began == 0)
				turn_began = cycles_now();
			if (idle_since != 0)
				host->control->idle_cycles += turn_began - idle_since;
			idle_since = 0;
			process_burst(host, worker, nb);
			count_turn(&host->control->sums, nb, host->given_back - turn_began);
			turn_began = cycles_now(); /* of the next, which is looked for at once */
			nb_done += nb;
		}
		if (host->nb_originated != 0)
			give_back_originated(host);
		if (__atomic_load_n(&host->interrupt, __ATOMIC_ACQUIRE) != 0) {
			__atomic_store_n(&host->interrupt, 0, __ATOMIC_RELAXED);
			return ONVM_EVENT_INTERRUPT;
		}
		if (__atomic_load_n(&host->control->attention, __ATOMIC_ACQUIRE) !=
		    host->attention_seen)
			return ONVM_EVENT_MESSAGE;
		if (deadline_ns != 0 && (nb_done != 0 || nb_idle % IDLE_SPINS_MIN == 0) &&
		    now_ns() >= deadline_ns)
			return ONVM_EVENT_DEADLINE;
		if (nb_done != 0) {
			nb_idle = 0;
			continue;
		}
		turn_began = 0;
		if (idle_since == 0)
			idle_since = cycles_now();
		nb_idle++;
		if (is_busy) {
			cpu_relax();
			if (nb_idle % BUSY_TURNS_PER_LOOK == 0 && !onvm_nf_host_is_alive(host))
				return ONVM_EVENT_DETACHED;
		} else if (nb_idle < nb_spins) {
			/* Whoever shares this core may be the one we wait for. */
			if (nb_idle % IDLE_SPINS_MIN == 0)
				sched_yield();
			else
				cpu_relax();
		} else {
			const uint64_t slept = host->control->sleeps;

			nb_spins = sleep_until(host, deadline_ns, nb_spins);
			if (host->control->sleeps != slept && !has_work(host) &&
			    !onvm_nf_host_is_alive(host))
				return ONVM_EVENT_DETACHED;
			nb_idle = 0;
		}
	}
}

void
onvm_nf_host_interrupt(struct onvm_nf_host *host)
{
	struct onvm_area_control *control = host->control;

	__atomic_store_n(&host->interrupt, 1, __ATOMIC_SEQ_CST);
	if (control != NULL) {
		__atomic_store_n(&control->sleeping, 0, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &control->sleeping, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

/* ---- messages ---- */

int
onvm_nf_host_receive(struct onvm_nf_host *host, struct onvm_message_header *header,
		     uint8_t *payload)
{
	struct iovec vectors[2] = {{header, sizeof(*header)}, {payload, ONVM_MESSAGE_MAX}};
	struct msghdr message = {.msg_iov = vectors, .msg_iovlen = 2};
	ssize_t length;

	if (host->socket < 0)
		return -ENOTCONN;
	/* Before the read: a message that comes in between raises the word again. */
	host->attention_seen = __atomic_load_n(&host->control->attention, __ATOMIC_ACQUIRE);
	length = recvmsg(host->socket, &message, MSG_DONTWAIT);
	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -ENOTCONN;
	if (length == 0)
		return -ENOTCONN;
	if ((size_t)length < sizeof(*header))
		return -EPROTO;
	header->peer[ONVM_NAME_LENGTH - 1] = '\0';
	header->length = (uint32_t)((size_t)length - sizeof(*header));
	return (int)header->length;
}

int
onvm_nf_host_send(struct onvm_nf_host *host, struct onvm_message_header *header,
		  const uint8_t *payload, uint32_t length)
{
	struct iovec vectors[2] = {{header, sizeof(*header)}, {(void *)(uintptr_t)payload, length}};
	struct msghdr message = {.msg_iov = vectors, .msg_iovlen = 2};

	if (host->socket < 0)
		return -ENOTCONN;
	if (length > ONVM_MESSAGE_MAX)
		return -EMSGSIZE;
	header->length = length;
	if (sendmsg(host->socket, &message, MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}

int
onvm_nf_host_ready(struct onvm_nf_host *host)
{
	struct onvm_message_header header = {.type = ONVM_MSG_READY};

	return onvm_nf_host_send(host, &header, NULL, 0);
}

/* ---- life ---- */

struct onvm_nf_host *
onvm_nf_host_create(void)
{
	struct onvm_nf_host *host = calloc(1, sizeof(*host));

	if (host == NULL)
		return NULL;
	host->socket = -1;
	for (uint32_t worker = 0; worker < ONVM_WORKERS_MAX; worker++)
		host->links[worker].event_fd = -1;
	return host;
}

void
onvm_nf_host_free(struct onvm_nf_host *host)
{
	if (host == NULL)
		return;
	onvm_nf_host_detach(host);
	free(host);
}

int
onvm_nf_host_set_stage(struct onvm_nf_host *host, uint32_t index, onvm_kernel kernel, void *state)
{
	struct onvm_stage *stage;

	if (index >= ONVM_STAGES_MAX || index > host->nb_stages || kernel == NULL)
		return -EINVAL;
	stage = &host->stages[index];
	stage->kernel = kernel;
	stage->host = host;
	stage->index = index;
	stage->ctx = (struct onvm_ctx){
		.state = state,
		.counters = host->control != NULL ? host->control->stage[index].counters :
						    host->unused_counters,
		.originate = originate,
		.runtime = stage,
	};
	if (index == host->nb_stages)
		host->nb_stages++;
	return 0;
}

const char *
onvm_nf_host_error(const struct onvm_nf_host *host)
{
	return host->error;
}

const struct onvm_attach_reply *
onvm_nf_host_reply(const struct onvm_nf_host *host)
{
	return &host->reply;
}

const uint64_t *
onvm_nf_host_counters(struct onvm_nf_host *host, uint32_t stage)
{
	if (host->control == NULL || stage >= host->nb_stages)
		return NULL;
	return host->control->stage[stage].counters;
}
