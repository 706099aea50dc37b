/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_ATTACH_FILES_H_
#define _ONVM_CONTROL_ATTACH_FILES_H_

/**
 * @file
 * The files that an NF host gets, and the links behind them: an attach area with the rings, and one
 * eventfd for each worker. The eventfds are made for this host: one that fills, empties or blocks
 * them harms itself alone.
 */

#include "worker/worker.h"

/**
 * Make the attach area and the links of the NF host in @p slot.
 *
 * @param nb_loaned  empty buffers that each worker lends it
 * @param node       NUMA node whose memory these are from; below 0: the worker's
 * @return 0 or -errno
 */
int onvm_attach_files_make(struct onvm_dataplane *dp, uint32_t slot, uint32_t nb_loaned, int node,
			   struct onvm_dp_attach_files *files);
/** Free the area and links of a host that is dead or was never used. */
void onvm_attach_files_free(struct onvm_dataplane *dp, uint32_t slot);

#endif /* _ONVM_CONTROL_ATTACH_FILES_H_ */
