/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attach.h"
#include "burst.h"
#include "child.h"
#include "held.h"

/**
 * Idle turns before an adaptive host sleeps. A sleep that ends soon was not worth its wake-up:
 * the next one comes later. One that lasts brings the turns back down, so that a host with little
 * to do, or one that shares its core, gives it away at once.
 */
#define IDLE_SPINS_MIN 64
#define IDLE_SPINS_MAX 2048
/** About the cost of a wake-up on a virtual machine. */
#define SHORT_SLEEP_NS 40000
/** Longest sleep, after which the socket is looked at: a dead manager cannot wake us. */
#define SLEEP_MAX_NS 100000000ull
/** Idle turns between two looks at the socket by a host that never sleeps. */
#define BUSY_TURNS_PER_LOOK (1u << 20)

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
	       __atomic_load_n(&host->interrupt, __ATOMIC_ACQUIRE) != 0 ||
	       onvm_nf_host_is_busy(host);
}

/** Wait for work; @return how many idle turns to spend before the next sleep. */
static uint32_t
sleep_until(struct onvm_nf_host *host, uint64_t deadline_ns, uint32_t nb_spins)
{
	uint32_t *word = &host->control->sleeping;
	const uint64_t time_ns = onvm_now_ns();
	uint64_t pause_ns = SLEEP_MAX_NS;
	struct timespec timeout;

	if (deadline_ns != 0 && deadline_ns <= time_ns)
		return nb_spins;
	if (deadline_ns != 0 && deadline_ns - time_ns < pause_ns)
		pause_ns = deadline_ns - time_ns;
	timeout.tv_sec = (time_t)(pause_ns / 1000000000ull);
	timeout.tv_nsec = (long)(pause_ns % 1000000000ull);
	/* S1: pairs with the fence S2 in the worker, which enqueues, then looks at the word. */
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!has_work(host)) {
		host->control->sleeps++;
		syscall(SYS_futex, word, FUTEX_WAIT, 1, &timeout, NULL, 0);
	}
	__atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
	if (onvm_now_ns() - time_ns < SHORT_SLEEP_NS)
		return nb_spins * 2 < IDLE_SPINS_MAX ? nb_spins * 2 : IDLE_SPINS_MAX;
	return nb_spins / 2 > IDLE_SPINS_MIN ? nb_spins / 2 : IDLE_SPINS_MIN;
}

static bool
has_message(const struct onvm_nf_host *host)
{
	return __atomic_load_n(&host->control->attention, __ATOMIC_ACQUIRE) != host->attention_seen;
}

int
onvm_nf_host_run(struct onvm_nf_host *host, uint64_t deadline_ns)
{
	uint32_t nb_idle = 0, nb_spins = IDLE_SPINS_MIN;
	uint64_t idle_since = 0, turn_began = 0;

	if (host->is_child)
		onvm_end_child();
	if (host->control == NULL)
		return ONVM_EVENT_DETACHED;
	for (;;) {
		uint32_t nb_done = 0;

		host->control->loops++;
		for (uint32_t worker = 0; worker < host->reply.nb_workers; worker++) {
			const uint32_t nb = onvm_burst_ready(host, worker);

			if (nb == 0)
				continue;
			/* A message that was sent before these packets is read before them. */
			if (has_message(host))
				break;
			if (turn_began == 0)
				turn_began = onvm_cycles_now();
			if (idle_since != 0)
				host->control->idle_cycles += turn_began - idle_since;
			idle_since = 0;
			onvm_burst_process(host, worker, nb);
			count_turn(&host->control->sums, nb, host->given_back - turn_began);
			turn_began =
				onvm_cycles_now(); /* of the next, which is looked for at once */
			nb_done += nb;
		}
		if (host->holds)
			nb_done += onvm_burst_return_released(host);
		if (host->nb_originated != 0)
			onvm_burst_return_originated(host);
		if (__atomic_load_n(&host->interrupt, __ATOMIC_ACQUIRE) != 0) {
			__atomic_store_n(&host->interrupt, 0, __ATOMIC_RELAXED);
			return ONVM_EVENT_INTERRUPT;
		}
		if (has_message(host))
			return ONVM_EVENT_MESSAGE;
		if (deadline_ns != 0 && (nb_done != 0 || nb_idle % IDLE_SPINS_MIN == 0) &&
		    onvm_now_ns() >= deadline_ns)
			return ONVM_EVENT_DEADLINE;
		if (nb_done != 0) {
			nb_idle = 0;
			continue;
		}
		turn_began = 0;
		if (idle_since == 0)
			idle_since = onvm_cycles_now();
		nb_idle++;
		if (onvm_nf_host_is_busy(host)) {
			onvm_cpu_relax();
			if (nb_idle % BUSY_TURNS_PER_LOOK == 0 && !onvm_nf_host_is_alive(host))
				return ONVM_EVENT_DETACHED;
		} else if (nb_idle < nb_spins && !host->gives_way) {
			/* The process that shares this core may be the one we wait for. */
			if (nb_idle % IDLE_SPINS_MIN == 0)
				sched_yield();
			else
				onvm_cpu_relax();
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
onvm_nf_host_turn(struct onvm_nf_host *host, uint32_t stage)
{
	struct onvm_ctx *ctx;

	if (stage >= host->nb_stages)
		return;
	ctx = &host->stages[stage].ctx;
	ctx->now_ns = onvm_now_ns();
	onvm_keep_epoch(host, ctx->now_ns);
	host->stages[stage].kernel(ctx, host->pkts, 0);
}

void
onvm_nf_host_give_way(struct onvm_nf_host *host, bool gives_way)
{
	host->gives_way = gives_way;
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
	host->offender = -1;
	return host;
}

void
onvm_nf_host_free(struct onvm_nf_host *host)
{
	if (host == NULL)
		return;
	onvm_nf_host_detach(host);
	for (uint32_t i = 0; i < ONVM_STAGES_MAX; i++)
		onvm_held_free(host->stages[i].held);
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
		.epoch_ns = host->epoch_ns,
		.counters = host->control != NULL ? host->control->stage[index].counters :
						    host->unused_counters,
		.originate = onvm_burst_originate,
		.runtime = stage,
		.may_originate = stage->may_originate,
		.hold = onvm_ctx_hold,
		.held = onvm_ctx_held,
		.release = onvm_ctx_release,
		.held_packets = stage->held,
	};
	if (index == host->nb_stages)
		host->nb_stages++;
	return 0;
}

int
onvm_nf_host_allow(struct onvm_nf_host *host, uint32_t index, bool may_originate, uint32_t nb_held)
{
	struct onvm_stage *stage;

	if (index >= ONVM_STAGES_MAX || nb_held > ONVM_HELD_MAX)
		return -EINVAL;
	stage = &host->stages[index];
	stage->may_originate = stage->ctx.may_originate = may_originate;
	if (nb_held == 0 || stage->held != NULL)
		return 0;
	stage->held = stage->ctx.held_packets = onvm_held_create(nb_held);
	if (stage->held == NULL)
		return -ENOMEM;
	host->holds = true;
	return 0;
}

struct onvm_held *
onvm_nf_host_held(struct onvm_nf_host *host, uint32_t index)
{
	return index < ONVM_STAGES_MAX ? host->stages[index].held : NULL;
}

struct onvm_ctx *
onvm_nf_host_ctx(struct onvm_nf_host *host, uint32_t index)
{
	return index < ONVM_STAGES_MAX ? &host->stages[index].ctx : NULL;
}

void
onvm_nf_host_hold(struct onvm_nf_host *host, bool allowed)
{
	uint32_t nb_holding = 0, limit;

	for (uint32_t i = 0; i < host->nb_stages; i++)
		nb_holding += host->stages[i].held != NULL;
	if (nb_holding == 0)
		return;
	/* A held packet keeps its place in the rings, and the others must get through. */
	limit = allowed && host->control != NULL ? host->reply.ring_length / 2 / nb_holding : 0;
	for (uint32_t i = 0; i < host->nb_stages; i++)
		if (host->stages[i].held != NULL)
			onvm_held_limit(host->stages[i].held, limit);
	if (allowed || host->control == NULL)
		return;
	for (uint32_t i = 0; i < host->nb_stages; i++)
		if (host->stages[i].held != NULL)
			onvm_held_release_all(host->stages[i].held);
	onvm_burst_return_released(host);
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
