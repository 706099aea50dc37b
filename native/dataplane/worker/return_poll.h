/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_RETURN_POLL_H_
#define _ONVM_RETURN_POLL_H_

/**
 * @file
 * Packets that come back from NF hosts, in bursts.
 */

#include "worker/worker.h"

/** Take a burst back from one NF host and pass it on; @return packets taken. */
uint32_t onvm_return_poll(struct onvm_worker *worker, struct onvm_link *link);

#endif /* _ONVM_RETURN_POLL_H_ */
