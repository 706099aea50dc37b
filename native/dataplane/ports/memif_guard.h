/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file
 * Keep the shared memory of a memif while a worker uses it.
 *
 * When the other end goes, the driver unmaps the shared memory in a thread of the environment, and
 * does not wait for bursts in work (DPDK 22.11, memif_disconnect() in drivers/net/memif). A worker
 * in the middle of one would read memory that is gone. So each burst holds a lock, and the driver's
 * memif_free_regions(), which the linker sends through here, takes all of them. A burst that begins
 * later sees that the port is not connected.
 */

#ifndef ONVM_PORTS_MEMIF_GUARD_H
#define ONVM_PORTS_MEMIF_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_ethdev.h>
#include <rte_spinlock.h>

/** Alone on its cache line: bursts of other queues take others. */
struct onvm_memif_guard {
	rte_spinlock_t lock;
} __rte_cache_aligned;

/**
 * The guard that bursts of @p queue of a device take; some queues share one.
 * @return NULL where the device of @p info is no memif and needs none
 */
struct onvm_memif_guard *
onvm_memif_guard_of(const struct rte_eth_dev_info *info, uint16_t ethdev, uint16_t queue);

static inline void
onvm_memif_guard_lock(struct onvm_memif_guard *guard)
{
	if (guard != NULL)
		rte_spinlock_lock(&guard->lock);
}

static inline void
onvm_memif_guard_unlock(struct onvm_memif_guard *guard)
{
	if (guard != NULL)
		rte_spinlock_unlock(&guard->lock);
}

#endif /* ONVM_PORTS_MEMIF_GUARD_H */
