/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_RETIRE_H_
#define _ONVM_RETIRE_H_

/**
 * @file
 * Retiring paths: each gets a successor that leads through other NF hosts, where there is one.
 *
 * Threads: the control thread.
 */

#include "steering/steering.h"

/**
 * Retire the live paths through @p host; @return how many.
 *
 * @param next_host  host that replaces it in successors where it can; 0: chosen as for new flows
 */
uint32_t
onvm_steering_retire_host(struct onvm_steering *steering, uint16_t host, uint16_t next_host);
/** Retire the live paths of @p chain that are not paths of it as it is now; @return how many. */
uint32_t onvm_steering_retire_chain(struct onvm_steering *steering, uint16_t chain);
/** Retire all live paths of @p chain; their successors are paths of @p next; @return how many. */
uint32_t onvm_steering_succeed_chain(struct onvm_steering *steering, uint16_t chain, uint16_t next);

#endif /* _ONVM_RETIRE_H_ */
