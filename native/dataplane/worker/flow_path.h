/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FLOW_PATH_H_
#define _ONVM_FLOW_PATH_H_

/**
 * @file
 * The path of a packet's flow: found in the flow table, or chosen for the first packet of a flow;
 * and the reverse flow, which is put into the table when a packet leaves.
 */

#include "worker/affinity.h"

/**
 * Path of the flow of packet @p i of the worker port's burst, chosen if the flow is new. Sets the
 * flow's position in the burst.
 *
 * @param bound  entry of the chain that the port is bound to
 * @return 0 when a service has no instance
 */
uint16_t onvm_path_of(struct onvm_worker *worker, struct onvm_worker_port *wport,
		      const struct onvm_chain_entry *bound, struct rte_mbuf *mbuf, uint32_t i);
/** Chain that packet @p i of the worker port's burst would take as the first of a flow. */
uint16_t onvm_chain_of(const struct onvm_worker *worker, const struct onvm_worker_port *wport,
		       const struct onvm_chain_entry *bound, uint32_t i);
/** Note what a packet tells of its flow that leaves its path here. */
void onvm_note_flow(struct onvm_worker *worker, const struct onvm_buffer *buffer);
/** Note what a packet tells that leaves through @p port, and install the reverse of its flow. */
void onvm_learn_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf,
			const struct onvm_buffer *buffer, uint16_t port);

#endif /* _ONVM_FLOW_PATH_H_ */
