/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CHOICE_H_
#define _ONVM_CHOICE_H_

/**
 * @file
 * The NF hosts among which one is chosen for a position of a chain.
 *
 * Threads: any; a choice is immutable once published.
 */

#include "steering/steering.h"

/** Whether @p host can serve the position that @p choice is about. */
bool onvm_choice_has(const struct onvm_choice *choice, uint16_t host);
/** The first of @p wishes, which may be NULL, that can serve it; 0: none. */
uint16_t onvm_choice_wished(const struct onvm_choice *choice, const struct onvm_wishes *wishes);
/**
 * The host that @p hash gives (highest random weight): others get another one only when their own
 * has gone, or for a new one. @return 0: there is none
 */
uint16_t onvm_choice_by_hash(const struct onvm_choice *choice, uint64_t hash);

#endif /* _ONVM_CHOICE_H_ */
