/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PATH_H_
#define _ONVM_PATH_H_

/**
 * @file
 * Rendered paths: made once for each choice of NF hosts, and found again (steering.h has the
 * rules).
 *
 * Threads: any; a spinlock for new paths, lock-free look-up of known ones.
 */

#include "steering/steering.h"

/** The forward path of @p chain through @p hosts; made if it is new. 0: all paths are in use. */
uint16_t onvm_path_intern(struct onvm_steering *steering, uint16_t chain, const uint16_t *hosts,
			  uint32_t nb_hosts, uint16_t egress);
/** onvm_path_intern(), but 0 when it is new. */
uint16_t onvm_path_find(const struct onvm_steering *steering, uint16_t chain, const uint16_t *hosts,
			uint32_t nb_hosts, uint16_t egress);
/** Whether the other direction of @p path is what @p chain wants it to be. */
bool onvm_path_has_reverse_of(const struct onvm_steering *steering, const struct onvm_path *path,
			      const struct onvm_chain *chain);
/** Take a forward path out of its bucket; readers on it go on. The lock is held. */
void onvm_path_unlink(struct onvm_steering *steering, uint16_t index);
/** Put a forward path, on which no reader is, into its bucket; the lock is held. */
void onvm_path_link(struct onvm_steering *steering, uint16_t index);
/** Free the index of a path that is not named anywhere; the lock is held. */
void onvm_steering_give_back(struct onvm_steering *steering, uint16_t index);

#endif /* _ONVM_PATH_H_ */
