/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_CLAIMS_H_
#define _ONVM_CONTROL_CLAIMS_H_

/**
 * @file
 * Changing what NF hosts claim.
 */

#include "worker/worker.h"

/** Remove all claims of @p slot; publishes. */
int onvm_claims_remove(struct onvm_dataplane *dp, uint16_t slot);

#endif /* _ONVM_CONTROL_CLAIMS_H_ */
