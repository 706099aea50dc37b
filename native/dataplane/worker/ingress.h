/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_INGRESS_H_
#define _ONVM_INGRESS_H_

/**
 * @file
 * Reading ports: the first step of a packet.
 */

#include "worker/worker.h"

/** Admit the packets that the last turn has received and classified; @return how many. */
uint32_t onvm_ingress_admit(struct onvm_worker *worker);
/** Receive on all worker ports; @return packets received. */
uint32_t onvm_ingress_receive(struct onvm_worker *worker);

#endif /* _ONVM_INGRESS_H_ */
