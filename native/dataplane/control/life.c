/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Life of the data plane: environment, memory, workers.
 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include <onvm/eal_log.h>

#include "control/captures.h"
#include "control/housekeeping.h"
#include "control/ports.h"
#include "control/publish.h"
#include "worker/fragments.h"
#include "worker/loop.h"

static pthread_t worker_threads[ONVM_WORKERS_MAX];
static bool is_registered; /**< the control thread, by us */

static int
init_qsbr(struct onvm_dataplane *dp)
{
	const size_t size = rte_rcu_qsbr_get_memsize(ONVM_WORKERS_MAX);

	dp->qsbr = aligned_alloc(64, (size + 63) & ~(size_t)63);
	if (dp->qsbr == NULL)
		return -ENOMEM;
	return rte_rcu_qsbr_init(dp->qsbr, ONVM_WORKERS_MAX);
}

static int
init_tables(struct onvm_dataplane *dp, const struct onvm_dp_config *config)
{
	int rc = onvm_packet_memory_init(&dp->memory, config->nodes, config->nb_nodes,
					 config->nb_buffers, config->nb_large_buffers,
					 config->data_bytes, (int)config->use_huge_pages);

	if (rc != 0)
		return onvm_fail(rc, "packet memory of %u buffers on each of %u NUMA nodes: %s",
				 config->nb_buffers, config->nb_nodes, strerror(-rc));
	rc = onvm_steering_init(&dp->steering);
	if (rc == 0)
		rc = init_qsbr(dp);
	if (rc == 0)
		rc = onvm_flow_table_init(&dp->flows, config->flow_capacity, config->flow_idle_ms,
					  dp->qsbr);
	return rc == 0 ? 0 :
			 onvm_fail(rc, "flow table of %u flows: %s", config->flow_capacity,
				   strerror(-rc));
}

int
onvm_dp_environment(int argc, char **argv)
{
	if (onvm_eal_init(argc, argv) < 0)
		return onvm_fail(-EIO, "DPDK environment: %s", rte_strerror(rte_errno));
	return 0;
}

uint64_t
onvm_dp_buffer_bytes(uint32_t data_bytes)
{
	return onvm_packet_stride(data_bytes) + sizeof(struct rte_mbuf);
}

int
onvm_dp_init(const struct onvm_dp_config *config)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	struct onvm_dataplane *dp = &onvm_dp;
	int rc;

	if (config->nb_workers == 0 || config->nb_workers > ONVM_WORKERS_MAX)
		return onvm_fail(-EINVAL, "%u workers: expected 1 to %u", config->nb_workers,
				 ONVM_WORKERS_MAX);
	if (config->sample_every == 0)
		return onvm_fail(-EINVAL, "one packet in 0 timed: expected 1 or more");
	if (config->ring_length < ONVM_RING_LENGTH_MIN ||
	    (config->ring_length & (config->ring_length - 1)) != 0)
		return onvm_fail(-EINVAL, "ring length %u: expected a power of two from %u",
				 config->ring_length, ONVM_RING_LENGTH_MIN);
	memset(dp, 0, sizeof(*dp));
	dp->config = *config;
	dp->hz = rte_get_tsc_hz();
	dp->ns_per_cycle = 1e9 / (double)dp->hz;
	dp->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = init_tables(dp, config);
	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < config->nb_workers; i++) {
		struct onvm_worker *worker = &dp->workers[i];

		worker->dp = dp;
		worker->index = i;
		worker->qsbr = dp->qsbr;
		worker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		worker->poll_fd = epoll_create1(EPOLL_CLOEXEC);
		if (worker->event_fd < 0 || worker->poll_fd < 0 ||
		    epoll_ctl(worker->poll_fd, EPOLL_CTL_ADD, worker->event_fd, &event) != 0)
			return onvm_fail(-errno, "eventfd: %s", strerror(errno));
	}
	return 0;
}

static int
run_worker(void *arg)
{
	struct onvm_worker *worker = arg;

	worker_threads[worker->index] = pthread_self();
	return onvm_worker_run(worker);
}

int
onvm_dp_start(void)
{
	struct onvm_dataplane *dp = &onvm_dp;
	uint32_t index = 0;
	unsigned int lcore;

	/* This thread need not be the one that started the environment; tables need an lcore ID. */
	if (rte_lcore_id() == LCORE_ID_ANY) {
		if (rte_thread_register() != 0)
			return onvm_fail(-rte_errno, "control thread: %s", rte_strerror(rte_errno));
		is_registered = true;
	}
	__atomic_store_n(&dp->must_stop, 0, __ATOMIC_RELEASE);
	if (onvm_housekeeping_start() != 0)
		return onvm_fail(-EAGAIN, "housekeeping thread does not start");
	RTE_LCORE_FOREACH_WORKER (lcore) {
		if (index == dp->config.nb_workers)
			break;
		if (rte_eal_remote_launch(run_worker, &dp->workers[index], lcore) != 0)
			return onvm_fail(-EBUSY, "worker %u does not start", index);
		index++;
	}
	if (index < dp->config.nb_workers)
		return onvm_fail(-EINVAL, "%u workers wanted, lcores for %u", dp->config.nb_workers,
				 index);
	for (uint32_t i = 0; i < index; i++)
		while (!__atomic_load_n(&dp->workers[i].is_running, __ATOMIC_ACQUIRE))
			usleep(100);
	return 0;
}

uint64_t
onvm_dp_worker_cpu_ns(uint32_t worker)
{
	struct timespec used;
	clockid_t clock;

	if (worker >= onvm_dp.config.nb_workers || !onvm_dp.workers[worker].is_running ||
	    pthread_getcpuclockid(worker_threads[worker], &clock) != 0 ||
	    clock_gettime(clock, &used) != 0)
		return 0;
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/** Free the packets that are still inside; the workers have stopped. */
static void
empty(struct onvm_dataplane *dp)
{
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		struct onvm_worker *worker = &dp->workers[w];

		for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++) {
			struct onvm_worker_port *wport = dp->wports[w][id];

			for (uint32_t i = 0; wport != NULL && i < wport->nb_held; i++)
				onvm_worker_drop(worker, wport->held[i], ONVM_DROP_STOPPED);
			for (uint32_t i = 0; wport != NULL && i < wport->nb_pending; i++)
				onvm_worker_drop(worker, wport->pending[i], ONVM_DROP_STOPPED);
			if (wport == NULL)
				continue;
			wport->nb_held = wport->nb_pending = 0;
			wport->pending_bytes = 0;
			onvm_fragments_forget(worker, wport);
		}
	}
	for (uint32_t i = 0; i < dp->memory.nb_buffers; i++) {
		struct onvm_buffer *buffer = &dp->memory.buffers[i];

		if (buffer->owner == ONVM_OWNER_NONE)
			continue;
		buffer->owner = ONVM_OWNER_NONE;
		if (buffer->flags & ONVM_BUFFER_LOANED)
			rte_pktmbuf_free(dp->memory.mbufs[i]);
		else
			onvm_worker_drop(&dp->workers[0], dp->memory.mbufs[i], ONVM_DROP_STOPPED);
	}
}

void
onvm_dp_stop(void)
{
	struct onvm_dataplane *dp = &onvm_dp;
	const uint64_t one = 1;
	bool was_running = false;

	__atomic_store_n(&dp->must_stop, 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < dp->config.nb_workers; i++) {
		was_running |= dp->workers[i].is_running;
		if (write(dp->workers[i].event_fd, &one, sizeof(one)) < 0)
			continue; /* awake already */
	}
	rte_eal_mp_wait_lcore();
	onvm_housekeeping_stop();
	if (was_running) {
		empty(dp);
		onvm_ports_finish(dp);
	}
}

void
onvm_dp_fini(void)
{
	struct onvm_dataplane *dp = &onvm_dp;

	onvm_dp_stop();
	onvm_captures_free(dp);
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++)
		onvm_port_free(dp, id);
	onvm_prober_stop(&dp->prober);
	if (is_registered)
		rte_thread_unregister();
	is_registered = false;
	/*
	 * Not rte_eal_cleanup(): it unmaps the environment's memory while the environment's own
	 * interrupt thread reads it. The process ends, and the environment keeps nothing outside.
	 */
}
