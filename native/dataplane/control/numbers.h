/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_NUMBERS_H_
#define _ONVM_CONTROL_NUMBERS_H_

/**
 * @file
 * Numbers of NF hosts in the cluster, by which packets between hosts name them.
 */

#include "worker/worker.h"

/** Let the cluster know the NF host in @p slot as @p number; 0: no more. Publishes. */
void onvm_host_set_number(struct onvm_dataplane *dp, uint32_t slot, uint16_t number);

#endif /* _ONVM_CONTROL_NUMBERS_H_ */
