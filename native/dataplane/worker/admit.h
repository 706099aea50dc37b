/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ADMIT_H_
#define _ONVM_ADMIT_H_

/**
 * @file
 * Admission: from a burst that was received to the first NF of a path.
 */

#include "worker/worker.h"

/** Admit a burst to the only path; @return how many packets are admitted or dropped. */
uint32_t onvm_admit_direct(struct onvm_worker *worker, struct onvm_worker_port *wport,
			   uint16_t path_index, struct rte_mbuf **mbufs, uint32_t nb);
/** Admit packets by their flows; @return how many are admitted or dropped. */
uint32_t
onvm_admit_flows(struct onvm_worker *worker, struct onvm_worker_port *wport, uint32_t binding,
		 const struct onvm_candidates *candidates, struct rte_mbuf **mbufs, uint32_t nb);

#endif /* _ONVM_ADMIT_H_ */
