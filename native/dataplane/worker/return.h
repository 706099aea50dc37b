/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_RETURN_H_
#define _ONVM_RETURN_H_

/**
 * @file
 * Packets that come back from NF hosts, one at a time.
 */

#include "worker/worker.h"

/** Check what one descriptor from an NF host says, and obey it or report a fault of the link. */
void
onvm_take_back(struct onvm_worker *worker, struct onvm_link *link, const struct onvm_desc *desc);

#endif /* _ONVM_RETURN_H_ */
