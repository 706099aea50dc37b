/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_LOOP_H_
#define _ONVM_LOOP_H_

/**
 * @file
 * The loop of a worker lcore.
 */

/** Run worker @p worker until onvm_dataplane.must_stop; the body of an lcore. */
int onvm_worker_run(void *worker);

#endif /* _ONVM_LOOP_H_ */
