/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_RUNTIME_H_
#define _ONVM_NF_RUNTIME_H_

/**
 * @file
 * The state of an NF host, which host.c, attach.c and burst.c share.
 */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include <onvm/nf.h>
#include <onvm/ring.h>

/** Packets an NF may make during one burst. */
#define ONVM_ORIGINATED_MAX 64
/** Among what a stage may not do, in a child that it has forked: come back; see child.h. */
#define ONVM_MAY_NOT_RETURN 0x80

struct onvm_stage {
	onvm_kernel kernel;
	struct onvm_ctx ctx;
	struct onvm_nf_host *host; /**< what ctx.runtime leads back to */
	uint32_t index;
	struct onvm_held *held; /**< packets that it holds; NULL: it holds none */
	bool may_originate;
	uint8_t forbidden; /**< enum onvm_permission that it lacks, and ONVM_MAY_NOT_RETURN */
};

/** The three rings shared with one worker lcore. */
struct onvm_worker_link {
	struct onvm_ring to_nf;
	struct onvm_ring from_nf;
	struct onvm_ring loan;
	int event_fd; /**< written to wake the worker */
};

struct onvm_nf_host {
	struct onvm_stage stages[ONVM_STAGES_MAX];
	uint32_t nb_stages;
	uint32_t burst_size;
	int socket; /**< -1 while not attached */
	struct onvm_attach_reply reply;
	uint8_t *memory; /**< packet memory */
	uint8_t *area;
	struct onvm_area_control *control;
	struct onvm_worker_link links[ONVM_WORKERS_MAX];
	uint32_t attention_seen;
	uint32_t interrupt;   /**< atomic: onvm_nf_host_interrupt() was called */
	int offender;	      /**< stage that dropped and may not, or -1 */
	bool is_child;	      /**< this is a child of the process that runs the host */
	bool gives_way;	      /**< to another thread, in all time without packets */
	uint64_t epoch_ns;    /**< wall clock minus monotonic clock */
	uint64_t epoch_at_ns; /**< when that was read */
	bool holds;	      /**< a stage has a table of held packets */
	uint32_t nb_originated;
	uint32_t nb_returns;			     /**< of the burst in work */
	uint64_t given_back;			     /**< when the last burst lay in the ring */
	uint64_t unused_counters[ONVM_COUNTERS_MAX]; /**< counted into while not attached */
	char error[600];
	struct onvm_pkt originated[ONVM_ORIGINATED_MAX];
	struct onvm_desc returns[ONVM_BURST_MAX + ONVM_ORIGINATED_MAX];
	struct onvm_pkt pkts[ONVM_BURST_MAX];
};

static inline uint64_t
onvm_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/** A clock for differences: the processor's where it has one to read quickly. */
static inline uint64_t
onvm_cycles_now(void)
{
#if defined(__x86_64__)
	return __rdtsc();
#else
	return onvm_now_ns();
#endif
}

static inline void
onvm_cpu_relax(void)
{
#if defined(__x86_64__)
	_mm_pause();
#else
	__asm__ volatile("yield" ::: "memory");
#endif
}

/** Nanoseconds after which the wall clock is compared again: it may be set, or slewed. */
#define ONVM_EPOCH_KEPT_NS 1000000000ull

/** Let the contexts of all stages know what to add to the monotonic clock for the wall clock. */
static inline void
onvm_keep_epoch(struct onvm_nf_host *host, uint64_t now_ns)
{
	struct timespec wall;

	if (__builtin_expect(now_ns - host->epoch_at_ns < ONVM_EPOCH_KEPT_NS, 1))
		return;
	clock_gettime(CLOCK_REALTIME, &wall);
	host->epoch_ns = (uint64_t)wall.tv_sec * 1000000000ull + (uint64_t)wall.tv_nsec -
			 onvm_now_ns();
	host->epoch_at_ns = now_ns;
	for (uint32_t i = 0; i < host->nb_stages; i++)
		host->stages[i].ctx.epoch_ns = host->epoch_ns;
}

/** Whether the host keeps its CPU while it has nothing to do. */
static inline bool
onvm_nf_host_is_busy(const struct onvm_nf_host *host)
{
	return host->reply.idle_policy == ONVM_IDLE_BUSY && !host->gives_way &&
	       __atomic_load_n(&host->control->shares_cpu, __ATOMIC_ACQUIRE) == 0;
}

#endif /* _ONVM_NF_RUNTIME_H_ */
