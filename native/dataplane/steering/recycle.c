/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Retired paths become free again; steering.h says in which steps and why.
 */

#include "steering/recycle.h"

#include "steering/path.h"

static uint8_t
state_of(const struct onvm_steering *steering, uint32_t index)
{
	return __atomic_load_n(&steering->paths[index].state, __ATOMIC_ACQUIRE);
}

static void
set_state(struct onvm_steering *steering, uint32_t index, enum onvm_path_state state)
{
	__atomic_store_n(&steering->paths[index].state, (uint8_t)state, __ATOMIC_RELEASE);
}

uint32_t
onvm_steering_unlink_retired(struct onvm_steering *steering)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t i = 1; i < end; i++) {
		__atomic_store_n(&steering->marks[i], 0, __ATOMIC_RELAXED);
		if (state_of(steering, i) == ONVM_PATH_LEAVING)
			nb++; /* had to wait the last time */
		/* Both directions are retired together, the forward one last. */
		if (state_of(steering, i) != ONVM_PATH_RETIRED || steering->paths[i].is_reverse)
			continue;
		rte_spinlock_lock(&steering->lock);
		onvm_path_unlink(steering, (uint16_t)i);
		rte_spinlock_unlock(&steering->lock);
		set_state(steering, i, ONVM_PATH_LEAVING);
		nb++;
	}
	return nb;
}

/** Mark the path, its other direction, and all to which they lead. */
static void
mark_from(struct onvm_steering *steering, uint16_t index)
{
	while (index != 0 && state_of(steering, index) >= ONVM_PATH_RETIRED) {
		onvm_steering_mark(steering, index);
		onvm_steering_mark(steering, steering->paths[index].opposite);
		index = steering->paths[index].successor;
	}
}

uint32_t
onvm_steering_hold_marked(struct onvm_steering *steering)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t i = 1; i < end; i++) {
		/* A path that was retired during step 1 may lead to one that is leaving. */
		const bool is_late = state_of(steering, i) == ONVM_PATH_RETIRED &&
				     !steering->paths[i].is_reverse;

		if (!is_late && __atomic_load_n(&steering->marks[i], __ATOMIC_RELAXED) == 0)
			continue;
		mark_from(steering, (uint16_t)i);
		mark_from(steering, steering->paths[i].opposite);
	}
	for (uint32_t i = 1; i < end; i++)
		nb += state_of(steering, i) == ONVM_PATH_LEAVING && steering->marks[i] == 0;
	return nb;
}

static void
free_path(struct onvm_steering *steering, uint32_t index)
{
	set_state(steering, index, ONVM_PATH_FREE);
	onvm_steering_give_back(steering, (uint16_t)index);
	__atomic_sub_fetch(&steering->nb_retired, 1, __ATOMIC_RELAXED);
}

uint32_t
onvm_steering_free_leaving(struct onvm_steering *steering)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t i = 1; i < end; i++) {
		const uint16_t opposite = steering->paths[i].opposite;

		if (state_of(steering, i) != ONVM_PATH_LEAVING || steering->marks[i] != 0)
			continue;
		rte_spinlock_lock(&steering->lock);
		if (opposite != 0)
			free_path(steering, opposite);
		free_path(steering, i);
		rte_spinlock_unlock(&steering->lock);
		nb += opposite != 0 ? 2 : 1;
	}
	return nb;
}
