/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_IDLE_QUEUE_H_
#define _ONVM_IDLE_QUEUE_H_

/**
 * @file
 * The flows of a table in the order of their last use.
 *
 * A queue has one idle time; a table has a queue for each that it needs. The flow that was used
 * longest ago is at the front, so that what has expired, and what is best given up when the table
 * is full, is found without a search. The value of each flow begins with its link.
 *
 * A flow moves to the end of its queue when it is used, at most once in ONVM_IDLE_GRAIN_NS: a busy
 * one costs a store. So the order is right to that grain; whether one flow has expired is exact.
 *
 * Threads: that of the table.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/tables.h>

#define ONVM_IDLE_GRAIN_NS 1000000000ull

struct onvm_idle_link {
	uint64_t used_ns;
	uint64_t queued_ns;    /**< when it was put at the end */
	int32_t before, after; /**< slots; below 0: none */
};
static_assert(sizeof(struct onvm_idle_link) == 24, "it lies in the values of flows");

struct onvm_idle_queue {
	uint64_t idle_ns;
	int32_t first, last; /**< slots; below 0: none */
};

static inline struct onvm_idle_link *
onvm_idle_link_of(struct onvm_flow_table *table, int32_t slot)
{
	return (struct onvm_idle_link *)onvm_flow_value(table, slot);
}

static inline void
onvm_idle_queue_init(struct onvm_idle_queue *queue, uint64_t idle_ns)
{
	queue->idle_ns = idle_ns;
	queue->first = queue->last = -1;
}

/** Put a flow that is in no queue at the end. */
static inline void
onvm_idle_queue_push(struct onvm_idle_queue *queue, struct onvm_flow_table *table, int32_t slot,
		     uint64_t now_ns)
{
	struct onvm_idle_link *const link = onvm_idle_link_of(table, slot);

	link->used_ns = link->queued_ns = now_ns;
	link->before = queue->last;
	link->after = -1;
	if (queue->last >= 0)
		onvm_idle_link_of(table, queue->last)->after = slot;
	else
		queue->first = slot;
	queue->last = slot;
}

static inline void
onvm_idle_queue_remove(struct onvm_idle_queue *queue, struct onvm_flow_table *table, int32_t slot)
{
	const struct onvm_idle_link *const link = onvm_idle_link_of(table, slot);

	if (link->before >= 0)
		onvm_idle_link_of(table, link->before)->after = link->after;
	else
		queue->first = link->after;
	if (link->after >= 0)
		onvm_idle_link_of(table, link->after)->before = link->before;
	else
		queue->last = link->before;
}

/** The flow is used at @p now_ns. */
static inline void
onvm_idle_queue_touch(struct onvm_idle_queue *queue, struct onvm_flow_table *table, int32_t slot,
		      uint64_t now_ns)
{
	struct onvm_idle_link *const link = onvm_idle_link_of(table, slot);

	link->used_ns = now_ns;
	if (now_ns < link->queued_ns + ONVM_IDLE_GRAIN_NS)
		return;
	onvm_idle_queue_remove(queue, table, slot);
	onvm_idle_queue_push(queue, table, slot, now_ns);
}

/** Whether a flow of the queue has been idle for its time. Look before you believe in one. */
static inline bool
onvm_idle_queue_has_expired(const struct onvm_idle_queue *queue, struct onvm_flow_table *table,
			    int32_t slot, uint64_t now_ns)
{
	const uint64_t used_ns = onvm_idle_link_of(table, slot)->used_ns;

	return now_ns >= used_ns && now_ns - used_ns >= queue->idle_ns;
}

/** The flow at the front if it has expired, or -1. */
static inline int32_t
onvm_idle_queue_expired(const struct onvm_idle_queue *queue, struct onvm_flow_table *table,
			uint64_t now_ns)
{
	return queue->first >= 0 &&
			       onvm_idle_queue_has_expired(queue, table, queue->first, now_ns) ?
		       queue->first :
		       -1;
}

#endif /* _ONVM_IDLE_QUEUE_H_ */
