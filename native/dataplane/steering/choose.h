/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CHOOSE_H_
#define _ONVM_CHOOSE_H_

/**
 * @file
 * Choosing NF hosts: for the flows of a chain, and for packets redirected off theirs.
 *
 * Instances are chosen in proportion to their spare capacity (smooth weighted round robin), so that
 * all come to the same utilisation.
 *
 * Threads: any, each with a selector of its own.
 */

#include "steering/steering.h"

/**
 * Choose an instance for each service of a chain and give the path through them.
 *
 * Instances are chosen in proportion to their spare capacity, so that all come to the same
 * utilisation.
 *
 * @return the forward path, or 0 when a service has no instance
 */
uint16_t
onvm_steering_choose(struct onvm_steering *steering, uint16_t chain,
		     const struct onvm_candidates *candidates, struct onvm_selector *selector);
/** onvm_steering_choose(), but where one of @p wishes can serve a position it is taken. */
uint16_t
onvm_steering_choose_with(struct onvm_steering *steering, uint16_t chain,
			  const struct onvm_candidates *candidates, struct onvm_selector *selector,
			  const struct onvm_wishes *wishes);
/** onvm_steering_choose_with(), but @p hash decides, as it does for others with the same one. */
uint16_t onvm_steering_choose_by_hash(struct onvm_steering *steering, uint16_t chain,
				      const struct onvm_candidates *candidates,
				      const struct onvm_wishes *wishes, uint64_t hash);
/** Path of one hop to @p host and out of @p egress, for packets redirected off their chain. */
uint16_t onvm_steering_detour(struct onvm_steering *steering, uint16_t host, uint16_t egress);
/** Choose among the active hosts that begin with @p service; 0: none. */
uint16_t onvm_steering_host_of(struct onvm_steering *steering, uint16_t service,
			       struct onvm_selector *selector);
/** Choose among @p nb_hosts hosts, at least one. */
uint16_t onvm_steering_choose_host(const struct onvm_steering *steering, const uint16_t *hosts,
				   uint32_t nb_hosts, struct onvm_selector *selector);

#endif /* _ONVM_CHOOSE_H_ */
