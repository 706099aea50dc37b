/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CANDIDATES_H_
#define _ONVM_CANDIDATES_H_

/**
 * @file
 * Candidates: the NF hosts that workers choose from, for each position of one chain.
 *
 * Threads: the control thread.
 */

#include "steering/steering.h"

/** New candidates for @p chain from the hosts as they are. */
struct onvm_candidates *onvm_steering_candidates(struct onvm_steering *steering, uint16_t chain);

#endif /* _ONVM_CANDIDATES_H_ */
