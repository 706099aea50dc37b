/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/steering.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int
onvm_steering_init(struct onvm_steering *steering)
{
	memset(steering, 0, sizeof(*steering));
	rte_spinlock_init(&steering->lock);
	pthread_mutex_init(&steering->changes, NULL);
	steering->paths = calloc(ONVM_PATHS_MAX, sizeof(*steering->paths));
	steering->intern = calloc(ONVM_INTERN_BUCKETS, sizeof(*steering->intern));
	steering->free_paths = calloc(ONVM_PATHS_MAX, sizeof(*steering->free_paths));
	steering->marks = calloc(ONVM_PATHS_MAX, sizeof(*steering->marks));
	steering->unlinked = calloc(ONVM_PATHS_MAX, sizeof(*steering->unlinked));
	steering->slots = calloc(ONVM_NUMBERS_MAX, sizeof(*steering->slots));
	steering->successors = calloc(ONVM_NUMBERS_MAX, sizeof(*steering->successors));
	steering->unknown_since_s = calloc(ONVM_NUMBERS_MAX, sizeof(*steering->unknown_since_s));
	steering->selector = calloc(1, sizeof(*steering->selector));
	steering->nb_paths = 1;
	steering->nb_slots = ONVM_HOSTS_MAX;
	if (steering->paths == NULL || steering->intern == NULL || steering->free_paths == NULL ||
	    steering->marks == NULL || steering->unlinked == NULL || steering->slots == NULL ||
	    steering->successors == NULL || steering->unknown_since_s == NULL ||
	    steering->selector == NULL) {
		onvm_steering_fini(steering);
		return -ENOMEM;
	}
	return 0;
}

void
onvm_steering_fini(struct onvm_steering *steering)
{
	for (int chain = 0; chain < ONVM_CHAINS_MAX; chain++)
		onvm_steering_free_candidates(steering->chains[chain].candidates);
	free(steering->paths);
	free(steering->intern);
	free(steering->free_paths);
	free(steering->marks);
	free(steering->unlinked);
	free(steering->slots);
	free(steering->successors);
	free(steering->unknown_since_s);
	free(steering->selector);
	memset(steering, 0, sizeof(*steering));
}

uint32_t
onvm_steering_nb_paths(const struct onvm_steering *steering)
{
	return __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED) - 1 -
	       __atomic_load_n(&steering->nb_free_paths, __ATOMIC_RELAXED);
}
