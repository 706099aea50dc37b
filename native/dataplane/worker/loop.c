/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/loop.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_rcu_qsbr.h>

#include "steering/recycle.h"
#include "worker/credits.h"
#include "worker/egress.h"
#include "worker/fragments.h"
#include "worker/ingress.h"
#include "worker/return_poll.h"

/** Idle turns before an adaptive worker sleeps. */
#define IDLE_TURNS_MIN 64
#define IDLE_TURNS_MAX 4096
/**
 * While packets are with NFs, stay awake this long: a sleep and its wake-up cost as much CPU time
 * (measured: 27 us on a virtual machine) and come later.
 */
#define EXPECTING_NS 40000u
/** A sleep shorter than this was not worth its wake-up: the next one comes later. */
#define SHORT_SLEEP_NS 40000u
/** Sleep of a worker with ports that must be polled: doubled from the first to the second. */
#define POLLED_SLEEP_MIN_NS 20000u
#define POLLED_SLEEP_MAX_NS 500000u
/** Sleep of a worker that others will wake. */
#define SLEEP_MAX_NS 50000000u
/** A paced source's next packet nearer than this is waited for awake. */
#define DUE_SPIN_NS 3000u
/** Wake-ups that are taken note of at once. */
#define EVENTS_MAX 16
/** Turns between two looks at loans, and at fragments that wait. */
#define SELDOM_TURNS 64

/* ---- loans ---- */

/** Keep an NF that makes packets in empty buffers. */
static void
top_up_loans(struct onvm_worker *worker, struct onvm_link *link)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;

	while (link->nb_loaned < link->nb_loans_wanted) {
		struct rte_mbuf *mbuf = rte_pktmbuf_alloc(link->loan_pool);
		struct onvm_desc desc = {.offset = RTE_PKTMBUF_HEADROOM};

		if (mbuf == NULL)
			return;
		desc.buffer = onvm_buffer_index(memory, mbuf);
		ONVM_ASSERT(memory->buffers[desc.buffer].owner == ONVM_OWNER_NONE);
		memory->buffers[desc.buffer] = (struct onvm_buffer){.owner = link->id,
								    .flags = ONVM_BUFFER_LOANED,
								    .flow = ONVM_FLOW_NONE};
		if (onvm_ring_enqueue_burst(&link->loan, &desc, 1) == 0) {
			memory->buffers[desc.buffer].owner = ONVM_OWNER_NONE;
			rte_pktmbuf_free(mbuf);
			/* The ring has twice as many slots as it may be lent: it lies. */
			onvm_link_report_fault(worker, link);
			return;
		}
		link->nb_loaned++;
	}
}

/* ---- changes by the control thread ---- */

/** Take back every buffer that a dead host's link owned: a sweep of private records. */
static void
sweep(struct onvm_worker *worker, struct onvm_link *link)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;

	link->nb_pending = 0; /* pending descriptors name buffers that the link owns */
	for (uint32_t index = 0; index < memory->nb_buffers; index++) {
		struct onvm_buffer *buffer = &memory->buffers[index];

		if (buffer->owner != link->id)
			continue;
		buffer->owner = ONVM_OWNER_NONE;
		if (buffer->flags & ONVM_BUFFER_LOANED) {
			rte_pktmbuf_free(memory->mbufs[index]);
		} else {
			onvm_credits_release(worker, &worker->dp->steering.paths[buffer->path],
					     buffer->hop + 1u, 1);
			onvm_worker_drop(worker, memory->mbufs[index], ONVM_DROP_NF_DIED);
			link->stats.lost++;
		}
	}
}

static void
take_over_links(struct onvm_worker *worker)
{
	struct onvm_dataplane *dp = worker->dp;

	worker->nb_links = 0;
	for (uint32_t host = 1; host < ONVM_HOSTS_MAX; host++) {
		struct onvm_link *link = dp->links[worker->index][host];
		/* P2: pairs with the release stores P1 of host states. */
		const uint8_t state =
			__atomic_load_n(&dp->steering.hosts[host].state, __ATOMIC_ACQUIRE);

		if (state == ONVM_HOST_FREE || state == ONVM_HOST_DEAD || link == NULL) {
			if (worker->link_of[host] != NULL && state == ONVM_HOST_DEAD)
				sweep(worker, worker->link_of[host]);
			worker->link_of[host] = NULL;
			continue;
		}
		worker->link_of[host] = link;
		worker->links[worker->nb_links++] = link;
	}
}

/** Drop what a port that closes has received and this worker has not admitted. */
static void
abandon(struct onvm_worker *worker, struct onvm_worker_port *wport)
{
	for (uint32_t i = 0; i < wport->nb_held; i++)
		onvm_worker_drop(worker, wport->held[i], ONVM_DROP_STOPPED);
	wport->nb_held = 0;
	onvm_fragments_forget(worker, wport);
}

static void
take_over_ports(struct onvm_worker *worker)
{
	struct onvm_dataplane *dp = worker->dp;

	worker->nb_wports = 0;
	worker->tunnel = NULL;
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
		/* P2: pairs with the release stores P1 of port states. */
		const uint8_t state = __atomic_load_n(&dp->ports[id].state, __ATOMIC_ACQUIRE);
		struct onvm_worker_port *wport = dp->wports[worker->index][id];

		if (state != ONVM_PORT_OPEN || wport == NULL) {
			/* A closed port's worker port may be gone: only one that we still use is ours. */
			wport = worker->wport_of[id];
			if (wport != NULL)
				abandon(worker, wport);
			worker->wport_of[id] = NULL;
			continue;
		}
		wport->waits_for = 0; /* may be another path by the next turn */
		worker->wport_of[id] = wport;
		worker->wports[worker->nb_wports++] = wport;
		if (wport->port->is_tunnel)
			worker->tunnel = wport;
	}
}

/** Mark the paths of packets that are with NF hosts; none is in the worker's own hands now. */
static void
mark_paths(struct onvm_worker *worker)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;

	for (uint32_t i = 0; i < memory->nb_buffers; i++) {
		const struct onvm_buffer *buffer = &memory->buffers[i];

		/* Of another worker's buffer only the owner is sure. */
		if (buffer->owner != ONVM_OWNER_NONE &&
		    buffer->owner % ONVM_WORKERS_MAX == worker->index)
			onvm_steering_mark(&worker->dp->steering, buffer->path);
	}
}

/** Take over the changes since the last turn; everything pending has been flushed. */
static void
take_over(struct onvm_worker *worker, uint32_t epoch)
{
	take_over_ports(worker);
	take_over_links(worker);
	memset(worker->resolved, 0, sizeof(worker->resolved));
	if (__atomic_load_n(&worker->dp->recycling.wants_marks, __ATOMIC_ACQUIRE))
		mark_paths(worker);
	for (uint32_t i = 0; i < worker->nb_links; i++)
		top_up_loans(worker, worker->links[i]);
	/* P5: pairs with the acquire load P6 in onvm_publish(). */
	__atomic_store_n(&worker->seen, epoch, __ATOMIC_RELEASE);
}

/* ---- idling ---- */

/** Nanoseconds to sleep, 0: stay awake. */
static uint64_t
sleep_time(const struct onvm_worker *worker, uint64_t polled_ns)
{
	const bool is_paused = __atomic_load_n(&worker->dp->sources_paused, __ATOMIC_RELAXED);
	uint64_t wait_ns = SLEEP_MAX_NS;

	for (uint32_t i = 0; i < worker->nb_wports; i++) {
		const struct onvm_worker_port *wport = worker->wports[i];
		struct onvm_port *port = wport->port;

		if (wport->nb_queues == 0 || (is_paused && !port->only_answers))
			continue;
		if (port->is_polled && polled_ns < wait_ns)
			wait_ns = polled_ns;
		if ((wport->nb_held | wport->nb_ready) != 0 && polled_ns < wait_ns)
			wait_ns = polled_ns;
		if (port->is_finished || port->ops->next_due == NULL)
			continue;
		for (uint16_t q = 0; q < wport->nb_queues; q++) {
			const uint64_t due = port->ops->next_due(port, wport->queues[q]);
			const uint64_t now = rte_rdtsc();
			uint64_t ns;

			if (due == 0) { /* wants to be read, but its path lacks credits */
				ns = polled_ns;
			} else if (due <= now) {
				return 0;
			} else {
				ns = (uint64_t)((double)(due - now) * worker->dp->ns_per_cycle);
				if (ns <= DUE_SPIN_NS)
					return 0;
				ns -= DUE_SPIN_NS / 2;
			}
			if (ns < wait_ns)
				wait_ns = ns;
		}
	}
	return wait_ns;
}

static bool
has_returns(struct onvm_worker *worker)
{
	for (uint32_t i = 0; i < worker->nb_links; i++)
		if (onvm_ring_count(&worker->links[i]->from_nf, 1) != 0)
			return true;
	return __atomic_load_n(&worker->dp->epoch, __ATOMIC_ACQUIRE) != worker->seen ||
	       __atomic_load_n(&worker->dp->must_stop, __ATOMIC_ACQUIRE);
}

/** Whether packets are with NFs that will soon give them back. */
static bool
is_expecting(const struct onvm_worker *worker)
{
	for (uint32_t i = 0; i < worker->nb_links; i++)
		if (worker->links[i]->reserved != 0)
			return true;
	return false;
}

/** Sleep for @p wait_ns or until woken; @return nanoseconds slept. */
static uint64_t
sleep_for(struct onvm_worker *worker, uint64_t wait_ns)
{
	const uint64_t begin = rte_rdtsc();
	struct pollfd poller = {.fd = worker->poll_fd, .events = POLLIN};
	const struct timespec timeout = {.tv_sec = (time_t)(wait_ns / 1000000000u),
					 .tv_nsec = (long)(wait_ns % 1000000000u)};
	struct epoll_event events[EVENTS_MAX];

	for (uint32_t i = 0; i < worker->nb_links; i++)
		__atomic_store_n(&worker->links[i]->control->worker_sleeping[worker->index], 1,
				 __ATOMIC_RELAXED);
	/* S3: pairs with the fence S4 in the NF host, which enqueues, then looks at the word. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!has_returns(worker)) {
		rte_rcu_qsbr_thread_offline(worker->qsbr, worker->index);
		if (ppoll(&poller, 1, &timeout, NULL) > 0)
			(void)epoll_wait(worker->poll_fd, events, EVENTS_MAX, 0);
		rte_rcu_qsbr_thread_online(worker->qsbr, worker->index);
		worker->stats.sleeps++;
	}
	for (uint32_t i = 0; i < worker->nb_links; i++)
		__atomic_store_n(&worker->links[i]->control->worker_sleeping[worker->index], 0,
				 __ATOMIC_RELAXED);
	return (uint64_t)((double)(rte_rdtsc() - begin) * worker->dp->ns_per_cycle);
}

/** Turns to idle before the next sleep, after one of @p slept_ns that was to last @p wait_ns. */
static uint32_t
next_idle_turns(uint32_t turns, uint64_t slept_ns, uint64_t wait_ns)
{
	if (slept_ns < SHORT_SLEEP_NS && slept_ns < wait_ns)
		return RTE_MIN(turns * 2, (uint32_t)IDLE_TURNS_MAX);
	return RTE_MAX(turns / 2, (uint32_t)IDLE_TURNS_MIN);
}

/* ---- the loop ---- */

/** Packets that could not be admitted are looked up again. */
static void
drop_classifications(struct onvm_worker *worker)
{
	for (uint32_t i = 0; i < worker->nb_wports; i++)
		worker->wports[i]->is_classified = false;
}

/** What need not be looked at in each turn. */
static void
look_seldom(struct onvm_worker *worker)
{
	for (uint32_t i = 0; i < worker->nb_links; i++)
		if (worker->links[i]->nb_loaned < worker->links[i]->nb_loans_wanted)
			top_up_loans(worker, worker->links[i]);
	onvm_fragments_expire(worker);
}

int
onvm_worker_run(void *arg)
{
	struct onvm_worker *worker = arg;
	struct onvm_dataplane *dp = worker->dp;
	const bool is_adaptive = dp->config.idle_policy == ONVM_IDLE_ADAPTIVE;
	uint64_t polled_ns = POLLED_SLEEP_MIN_NS, idle_since = 0;
	const uint64_t expecting_cycles = (uint64_t)((double)EXPECTING_NS / dp->ns_per_cycle);
	uint32_t nb_idle = 0, turn = 0, idle_turns = IDLE_TURNS_MIN;

	/* Timers of ordinary threads may be 50 us late; a sleeping worker's must not. */
	prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
	worker->sample_countdown = dp->config.sample_every;
	rte_rcu_qsbr_thread_register(worker->qsbr, worker->index);
	rte_rcu_qsbr_thread_online(worker->qsbr, worker->index);
	__atomic_store_n(&worker->is_running, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&dp->must_stop, __ATOMIC_RELAXED)) {
		/* P4: pairs with raising the epoch, P3 in onvm_publish(). */
		const uint32_t epoch = __atomic_load_n(&dp->epoch, __ATOMIC_ACQUIRE);
		uint32_t nb_done;

		if (unlikely(epoch != worker->seen))
			take_over(worker, epoch);
		nb_done = onvm_ingress_admit(worker);
		/* Nothing is classified and not yet admitted: positions may be reused. */
		drop_classifications(worker);
		rte_rcu_qsbr_quiescent(worker->qsbr, worker->index);
		nb_done += onvm_ingress_receive(worker);
		for (uint32_t i = 0; i < worker->nb_links; i++)
			nb_done += onvm_return_poll(worker, worker->links[i]);
		onvm_egress_flush(worker);
		if (++turn % SELDOM_TURNS == 0)
			look_seldom(worker);
		if (likely(nb_done != 0)) {
			if (idle_since != 0)
				worker->stats.idle_cycles += rte_rdtsc() - idle_since;
			idle_since = 0;
			nb_idle = 0;
			polled_ns = POLLED_SLEEP_MIN_NS;
			continue;
		}
		if (idle_since == 0)
			idle_since = rte_rdtsc();
		rte_pause();
		if (is_adaptive && ++nb_idle >= idle_turns &&
		    (rte_rdtsc() - idle_since > expecting_cycles || !is_expecting(worker))) {
			const uint64_t wait_ns = sleep_time(worker, polled_ns);

			if (wait_ns == 0)
				continue;
			idle_turns =
				next_idle_turns(idle_turns, sleep_for(worker, wait_ns), wait_ns);
			polled_ns = RTE_MIN(polled_ns * 2, (uint64_t)POLLED_SLEEP_MAX_NS);
			/* A few turns are enough to find new packets. */
			nb_idle = idle_turns - IDLE_TURNS_MIN / 8;
		}
	}
	rte_rcu_qsbr_thread_offline(worker->qsbr, worker->index);
	rte_rcu_qsbr_thread_unregister(worker->qsbr, worker->index);
	__atomic_store_n(&worker->is_running, 0, __ATOMIC_RELEASE);
	return 0;
}
