/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_WORKER_PERMISSIONS_H_
#define _ONVM_WORKER_PERMISSIONS_H_

/**
 * @file
 * What NF hosts may do to packets, enforced where packets come back from them.
 *
 * A host whose stages may not change packets maps their memory for reading only (the descriptor
 * that it gets allows nothing else), so what is left to check is bounds and verdicts. A packet of
 * a host that breaks a limit goes on as if it had kept it, and the host is reported.
 */

#include "worker/worker.h"

/** Undo what a limited host may not do, in descriptors that it has given back. */
void onvm_link_enforce(struct onvm_worker *worker, struct onvm_link *link, struct onvm_desc *descs,
		       uint32_t nb);

#endif /* _ONVM_WORKER_PERMISSIONS_H_ */
