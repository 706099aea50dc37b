/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_PUBLISH_H_
#define _ONVM_CONTROL_PUBLISH_H_

/**
 * @file
 * Making changes known to the workers, and errors to the user.
 *
 * Each change is written with release stores, then made known by raising the epoch. When every
 * worker has taken the change over between two bursts, no worker uses the old value any more, and
 * the control thread frees it.
 *
 * Memory order:
 *  - P1, the release store of a pointer or state, pairs with P2, the acquire load of a worker: what
 *    it leads to is complete.
 *  - P3, raising the epoch, pairs with P4, the acquire load in the worker's loop: a worker that sees
 *    the epoch sees all changes before it.
 *  - P5, the release store of `seen` at the end of a worker's take-over, pairs with P6, the control
 *    thread's acquire load: after it no worker reads what was replaced.
 *
 * Threads: the control thread and housekeeping.
 */

#include "worker/worker.h"

/** The data plane of this process. */
extern struct onvm_dataplane onvm_dp;

/** Keep a line for the user and return @p result. */
__attribute__((format(printf, 2, 3))) int onvm_fail(int result, const char *format, ...);

/** Make sleeping workers look around. */
void onvm_wake_workers(struct onvm_dataplane *dp);
/** Raise the epoch and wait until every running worker has taken over all changes. */
void onvm_publish(struct onvm_dataplane *dp);

/** What onvm_swap_candidates() has replaced, by chain. */
struct onvm_old_candidates {
	struct onvm_candidates *of[ONVM_CHAINS_MAX];
};
/**
 * Build what workers choose from, for all chains, and let them see it.
 *
 * @param old  what they may still read until onvm_publish(); then for onvm_free_candidates()
 */
int onvm_swap_candidates(struct onvm_dataplane *dp, struct onvm_old_candidates *old);
void onvm_free_candidates(struct onvm_old_candidates *old);
/** Build and publish what workers choose from, for all chains; free the old. */
int onvm_publish_candidates(struct onvm_dataplane *dp);

#endif /* _ONVM_CONTROL_PUBLISH_H_ */
