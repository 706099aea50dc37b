/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CREDITS_H_
#define _ONVM_CREDITS_H_

/**
 * @file
 * Credits of links: the right to put one packet on a ring.
 *
 * A packet takes one credit of every link of its path when it is admitted, and gives each back when
 * it has come back through that link or has left the path. A link has as many credits as its rings
 * have slots, so no ring inside the platform overflows (link.h).
 *
 * Paths that lead over peers hold credits only up to the first hop at a peer.
 *
 * Threads: the worker that owns the links.
 */

#include <onvm/assert.h>

#include "worker/worker.h"

/**
 * Packets that may enter @p path at hop @p first; 0 while one of its hosts is paused.
 *
 * @param can_wait  the source loses nothing when it waits: it may use all credits. Others stop at
 *                  the high watermark until the link has fallen below the low one.
 */
static inline uint32_t
onvm_credits_available(struct onvm_worker *worker, const struct onvm_path *path, uint32_t first,
		       bool can_wait)
{
	const uint32_t end = onvm_path_end_here(path, first);
	uint32_t nb = UINT32_MAX;

	for (uint32_t i = first; i < end; i++) {
		struct onvm_link *link = onvm_link_of_hop(worker, &path->hops[i]);
		uint32_t limit;

		if (unlikely(link == NULL || __atomic_load_n(&link->is_paused, __ATOMIC_RELAXED)))
			return 0;
		if (can_wait) {
			limit = link->length;
		} else {
			if (link->is_above && link->reserved < link->low)
				link->is_above = false;
			else if (!link->is_above && link->reserved >= link->high)
				link->is_above = true;
			limit = link->is_above ? 0 : link->high;
		}
		if (limit <= link->reserved)
			return 0;
		if (limit - link->reserved < nb)
			nb = limit - link->reserved;
	}
	/* A host that serves several positions takes a credit for each. */
	return likely(path->nb_visits <= 1) ? nb : nb / path->nb_visits;
}

/** Take @p nb credits of each link from hop @p first on. */
static inline void
onvm_credits_reserve(struct onvm_worker *worker, const struct onvm_path *path, uint32_t first,
		     uint32_t nb)
{
	const uint32_t end = onvm_path_end_here(path, first);

	for (uint32_t i = first; i < end; i++) {
		struct onvm_link *link = onvm_link_of_hop(worker, &path->hops[i]);

		if (unlikely(link == NULL))
			continue;
		link->reserved += nb;
		ONVM_ASSERT(link->reserved <= link->length);
		if (link->reserved > link->stats.peak)
			link->stats.peak = link->reserved;
	}
}

/** Give back @p nb credits of one link. */
static inline void
onvm_credits_give(struct onvm_link *link, uint32_t nb)
{
	ONVM_ASSERT(link->reserved >= nb);
	link->reserved -= nb;
}

/** Give back the credits of the links from hop @p first on, @p nb of each. */
static inline void
onvm_credits_release(const struct onvm_worker *worker, const struct onvm_path *path, uint32_t first,
		     uint32_t nb)
{
	const uint32_t end = onvm_path_end_here(path, first);

	for (uint32_t i = first; i < end; i++) {
		struct onvm_link *link = onvm_link_of_hop(worker, &path->hops[i]);

		if (likely(link != NULL))
			onvm_credits_give(link, nb);
	}
}

/** Take one credit of @p link for a packet that took none there at the entry. */
static inline bool
onvm_credits_take(struct onvm_link *link)
{
	if (link->reserved >= link->length)
		return false;
	link->reserved++;
	return true;
}

/** Count @p nb packets shed against the first link from hop @p first on without credits. */
void onvm_credits_count_shed(struct onvm_worker *worker, const struct onvm_path *path,
			     uint32_t first, uint32_t nb);

#endif /* _ONVM_CREDITS_H_ */
