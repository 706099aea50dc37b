/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/idle.h"

#include <string.h>

#include "steering/path.h"
#include "steering/recycle.h"

static uint8_t
state_of(const struct onvm_steering *steering, uint32_t index)
{
	return __atomic_load_n(&steering->paths[index].state, __ATOMIC_ACQUIRE);
}

/** Mark what retired paths and candidates name. */
static void
mark_named(struct onvm_steering *steering, uint32_t end)
{
	for (uint32_t i = 1; i < end; i++)
		if (state_of(steering, i) >= ONVM_PATH_RETIRED)
			onvm_steering_mark(steering, steering->paths[i].successor);
	for (uint32_t id = 1; id < ONVM_CHAINS_MAX; id++)
		if (steering->chains[id].candidates != NULL)
			onvm_steering_mark(steering, steering->chains[id].candidates->default_path);
}

uint32_t
onvm_idle_unlink(struct onvm_steering *steering, uint32_t nb_max)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t i = 0; i < end; i++)
		__atomic_store_n(&steering->marks[i], 0, __ATOMIC_RELAXED);
	mark_named(steering, end);
	for (uint32_t i = 1; i < end && nb < nb_max; i++) {
		const uint32_t index = steering->idle_cursor = steering->idle_cursor % (end - 1) +
							       1;

		if (state_of(steering, index) != ONVM_PATH_LIVE ||
		    steering->paths[index].is_reverse || steering->marks[index] != 0)
			continue;
		rte_spinlock_lock(&steering->lock);
		onvm_path_unlink(steering, (uint16_t)index);
		rte_spinlock_unlock(&steering->lock);
		steering->unlinked[index] = 1;
		nb++;
	}
	return nb;
}

/** Free both directions of a path, or link it again; the lock is held. */
static uint32_t
free_or_link(struct onvm_steering *steering, uint16_t index)
{
	const uint16_t opposite = steering->paths[index].opposite;

	if (__atomic_load_n(&steering->marks[index], __ATOMIC_RELAXED) != 0 ||
	    (opposite != 0 && __atomic_load_n(&steering->marks[opposite], __ATOMIC_RELAXED) != 0)) {
		onvm_path_link(steering, index);
		return 0;
	}
	__atomic_store_n(&steering->paths[index].state, ONVM_PATH_FREE, __ATOMIC_RELEASE);
	onvm_steering_give_back(steering, index);
	if (opposite == 0)
		return 1;
	__atomic_store_n(&steering->paths[opposite].state, ONVM_PATH_FREE, __ATOMIC_RELEASE);
	onvm_steering_give_back(steering, opposite);
	return 2;
}

uint32_t
onvm_idle_free(struct onvm_steering *steering)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t i = 1; i < end; i++) {
		if (steering->unlinked[i] == 0)
			continue;
		steering->unlinked[i] = 0;
		rte_spinlock_lock(&steering->lock);
		nb += free_or_link(steering, (uint16_t)i);
		rte_spinlock_unlock(&steering->lock);
	}
	return nb;
}
