/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_LINK_H_
#define _ONVM_LINK_H_

/**
 * @file
 * A link joins one worker lcore and one NF host: three rings and their credits.
 *
 * *Credits* keep rings from overflowing. A packet is admitted only when every link of its path has
 * a credit left, and holds one credit of each until it has come back through the link or left the
 * path. A link has as many credits as its rings have slots, so no ring inside the platform is ever
 * full. Packets that would queue are shed at the entry, before work is spent on them, or stay in a
 * source that can wait.
 *
 * Threads: everything here belongs to one worker, except the rings' shared halves; the control
 * thread reads the counters.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/ring.h>

#include "latency.h"
#include "table_sizes.h"

/** Counters of one link; index 0 of a pair is forwards, 1 backwards. */
struct onvm_link_stats {
	uint64_t rx[2];			    /**< packets given to the NF host */
	uint64_t exits[2][ONVM_STAGES_MAX]; /**< packets that left the host at this stage early */
	uint64_t drops[ONVM_STAGES_MAX][ONVM_REASONS_MAX]; /**< of those, dropped */
	uint64_t originated[ONVM_STAGES_MAX];
	uint64_t lost;		     /**< with the host when it died */
	uint64_t nb_shed;	     /**< packets shed because this link was above its watermark */
	uint64_t nb_bad;	     /**< impossible descriptors */
	uint64_t peak;		     /**< most credits ever taken */
	struct onvm_latency latency; /**< of sampled packets, from enqueue to return */
};

/** How an NF host has broken the rules. */
enum onvm_fault {
	ONVM_FAULT_NONE = 0,
	ONVM_FAULT_RINGS = 1,	/**< of its rings or descriptors */
	ONVM_FAULT_DROP = 2,	/**< dropped a packet without permission */
	ONVM_FAULT_REWRITE = 3, /**< changed the bounds of a packet without permission */
};

struct rte_mempool;

struct onvm_link {
	struct onvm_ring to_nf;
	struct onvm_ring from_nf;
	struct onvm_ring loan;
	struct onvm_area_control *control;
	int event_fd; /**< the host wakes the worker with it; no other host has it */
	uint16_t id;  /**< onvm_buffer.owner of the buffers that it has */
	uint16_t host;
	uint32_t generation;
	uint32_t nb_stages;
	uint32_t length;    /**< credits in all */
	uint32_t reserved;  /**< credits taken */
	uint32_t high, low; /**< watermarks, in credits */
	bool is_above;	    /**< above the high one, and not yet below the low one */
	uint32_t nb_loans_wanted;
	uint32_t nb_loaned; /**< empty buffers with the NF */
	uint8_t fault;	    /**< atomic: enum onvm_fault, how the host broke the rules */
	bool is_limited;    /**< some of its stages may not do all; see worker/permissions.c */
	bool reads_only;    /**< none of its stages may change packets */
	uint16_t no_drops;  /**< bit i: stage i may not drop */
	uint8_t is_paused;  /**< atomic: no packet enters a path through it */
	uint32_t nb_pending;
	struct onvm_link_stats stats;
	struct onvm_desc pending[ONVM_PENDING_MAX];
	struct rte_mempool *loan_pool; /**< where the host's empty buffers come from */
};

/** Link ID of worker @p worker and host slot @p host; never 0, because slot 0 is not used. */
static inline uint16_t
onvm_link_id(uint32_t host, uint32_t worker)
{
	return (uint16_t)(host * ONVM_WORKERS_MAX + worker);
}

#endif /* _ONVM_LINK_H_ */
