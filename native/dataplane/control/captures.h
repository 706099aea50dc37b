/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_CAPTURES_H_
#define _ONVM_CONTROL_CAPTURES_H_

/**
 * @file
 * Captures, as far as the end of the data plane is concerned.
 */

#include "worker/worker.h"

/** Free captures that are still running; the workers have stopped. */
void onvm_captures_free(struct onvm_dataplane *dp);

#endif /* _ONVM_CONTROL_CAPTURES_H_ */
