/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_RECYCLE_H_
#define _ONVM_RECYCLE_H_

/**
 * @file
 * Retired paths become free again; the head of steering.h has the steps and the reasons.
 *
 * Threads: housekeeping, but for onvm_steering_mark(), which workers call.
 */

#include "steering/steering.h"

/** Step 1: unlink all retired paths and clear the marks; @return how many are leaving. */
uint32_t onvm_steering_unlink_retired(struct onvm_steering *steering);
/** After step 1: let marked paths wait; @return how many are still leaving. */
uint32_t onvm_steering_hold_marked(struct onvm_steering *steering);
/** Step 3: free leaving paths; @return how many. */
uint32_t onvm_steering_free_leaving(struct onvm_steering *steering);
/** Step 1, by workers: mark @p path, because a packet is on its way on it. */
static inline void
onvm_steering_mark(struct onvm_steering *steering, uint16_t path)
{
	__atomic_store_n(&steering->marks[path], 1, __ATOMIC_RELAXED);
}

#endif /* _ONVM_RECYCLE_H_ */
