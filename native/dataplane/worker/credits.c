/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/credits.h"

void
onvm_credits_count_shed(struct onvm_worker *worker, const struct onvm_path *path, uint32_t first,
			uint32_t nb)
{
	const uint32_t end = onvm_path_end_here(path, first);

	for (uint32_t i = first; i < end; i++) {
		struct onvm_link *link = onvm_link_of_hop(worker, &path->hops[i]);

		if (link == NULL || link->is_above || link->reserved >= link->high) {
			if (link != NULL)
				link->stats.nb_shed += nb;
			return;
		}
	}
}
