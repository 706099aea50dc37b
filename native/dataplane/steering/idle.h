/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_IDLE_H_
#define _ONVM_IDLE_H_

/**
 * @file
 * Live paths without flows become free again; the head of steering.h has the steps and the reasons.
 *
 * Threads: housekeeping, which holds `changes` from the first call to the last.
 */

#include "steering/steering.h"

/** Paths in the table from which on idle ones are looked for. */
#define ONVM_IDLE_PATHS (ONVM_PATHS_MAX / 2)

/** Unlink up to @p nb_max live forward paths and clear all marks; @return how many. */
uint32_t onvm_idle_unlink(struct onvm_steering *steering, uint32_t nb_max);
/** Free unlinked paths that nothing names and nothing has marked, link the others; @return freed. */
uint32_t onvm_idle_free(struct onvm_steering *steering);

#endif /* _ONVM_IDLE_H_ */
