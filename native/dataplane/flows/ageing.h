/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_AGEING_H_
#define _ONVM_AGEING_H_

/**
 * @file
 * How long idle flows stay in the table.
 *
 * A flow stays while an NF may hold state for it: NFs tell how long that is for each class of flows,
 * and the longest time of a chain counts. So a connection that was silent for two hours meets the
 * instance that knows it. A flow and its reverse leave together.
 *
 * That would let strangers fill the table. So from seven eighths on, lives shrink, in the order of
 * what flows are worth: first those that were not answered or are closed, down to nothing at
 * 31/32; then connections of which one way alone was seen. What came through both ways stays, and a
 * stranger cannot send that without an accomplice. (pf's adaptive timeouts and the early drop of
 * Linux's conntrack are the models.)
 *
 * The time of the last packet has eight bits of ticks, and 255 of them last a minute. When
 * ageing meets a flow that has been idle for some, it notes the time and the class in `quiet` and
 * sets `seen` to 0; the next packet sets it again. What changes the class of a flow touches both of
 * its directions, so the class holds while `seen` is 0.
 *
 * An address that has instances of its own (worker/affinity.h) stays while flows name it as their
 * owner: each pass touches the owners of the flows that live.
 *
 * Threads: housekeeping, but onvm_flow_set_lives() the control thread.
 */

#include "flows/flow_table.h"

/** Set the lives of the flows on paths of @p chain; @p ms by enum onvm_flow_class. */
void onvm_flow_set_lives(struct onvm_flow_table *table, uint16_t chain,
			 const uint32_t ms[ONVM_FLOW_LIVES]);
/**
 * Look at up to @p budget positions and remove idle flows.
 *
 * @param steering  NULL, or that of the paths: gives flows the lives of their chains, and replaces
 *                  retired paths by their successors; a flow without successor is removed
 * @return flows removed
 */
uint32_t onvm_flow_table_age(struct onvm_flow_table *table, uint32_t budget,
			     const struct onvm_steering *steering);
/** Time since the last packet of the flow at @p position, in ticks; for display: any thread. */
uint32_t onvm_flow_idle_ticks(const struct onvm_flow_table *table, uint32_t position);

#endif /* _ONVM_AGEING_H_ */
