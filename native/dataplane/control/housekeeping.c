/* SPDX-License-Identifier: Apache-2.0 */
#include "control/housekeeping.h"

#include <time.h>

#include <rte_lcore.h>

#include "control/ports.h"
#include "control/publish.h"
#include "control_thread.h"
#include "flows/ageing.h"
#include "steering/idle.h"
#include "steering/recycle.h"

/** Flows are aged this often, so many positions each time. */
#define HOUSEKEEPING_NS 10000000
/** Turns at once while flows are few: to wake up costs more than to look at them. */
#define QUIET_TURNS 5
#define FEW_FLOWS 1024
#define AGE_BUDGET 65536
/** Turns between two looks at retired paths: each wakes the workers. */
#define RECYCLE_TURNS 10
/** Turns between two looks for idle paths, and the most that are looked at. */
#define IDLE_TURNS 25
#define IDLE_BUDGET 4096

/** Turns between two looks at the interfaces of ports. */
#define REVIVE_TURNS 25

static onvm_control_thread thread;
static uint8_t is_running; /**< atomic */

/** Publish for recycling; false: the workers stop, nothing may be concluded. */
static bool
all_have_passed(struct onvm_dataplane *dp)
{
	onvm_publish(dp);
	return !__atomic_load_n(&dp->must_stop, __ATOMIC_ACQUIRE);
}

/** Let every worker take over, and mark the paths of its packets; false: they stop. */
static bool
mark_packets(struct onvm_dataplane *dp)
{
	bool have_passed;

	__atomic_store_n(&dp->recycling.wants_marks, 1, __ATOMIC_RELEASE);
	have_passed = all_have_passed(dp);
	__atomic_store_n(&dp->recycling.wants_marks, 0, __ATOMIC_RELEASE);
	return have_passed;
}

/** Use retired paths again, a step at a time; steering.h has the reasons. */
static void
recycle_paths(struct onvm_dataplane *dp)
{
	struct onvm_steering *steering = &dp->steering;

	if (dp->recycling.is_waiting) {
		if (dp->flows.passes - dp->recycling.since < 2 || !all_have_passed(dp))
			return;
		onvm_steering_free_leaving(steering);
		dp->recycling.is_waiting = false;
	}
	if (__atomic_load_n(&steering->nb_retired, __ATOMIC_ACQUIRE) == 0 ||
	    onvm_steering_unlink_retired(steering) == 0)
		return;
	dp->recycling.is_waiting = mark_packets(dp) && onvm_steering_hold_marked(steering) != 0;
	dp->recycling.since = dp->flows.passes;
}

/**
 * Use live paths without flows again. Packets are looked at before and after the flows: one that
 * leaves in between may teach a path to a flow that has been looked at.
 */
static void
recycle_idle_paths(struct onvm_dataplane *dp)
{
	struct onvm_steering *steering = &dp->steering;

	if (onvm_steering_nb_paths(steering) < ONVM_IDLE_PATHS ||
	    pthread_mutex_trylock(&steering->changes) != 0)
		return;
	if (onvm_idle_unlink(steering, IDLE_BUDGET) != 0 && mark_packets(dp)) {
		onvm_flow_table_mark(&dp->flows, steering);
		if (mark_packets(dp))
			onvm_idle_free(steering);
	}
	pthread_mutex_unlock(&steering->changes);
}

static onvm_control_thread_result
run_housekeeping(void *arg)
{
	struct onvm_flow_table *flows = &onvm_dp.flows;
	struct onvm_steering *steering = &onvm_dp.steering;
	struct timespec pause = {0}, now;
	uint32_t nb_turns = 0, step;

	RTE_SET_USED(arg);
	/* rte_hash wants to know which thread deletes. */
	if (rte_thread_register() != 0)
		return 0;
	while (__atomic_load_n(&is_running, __ATOMIC_ACQUIRE)) {
		step = onvm_flow_table_used(flows) <= FEW_FLOWS ? QUIET_TURNS : 1;
		pause.tv_nsec = (long)step * HOUSEKEEPING_NS;
		nb_turns += step;
		clock_gettime(CLOCK_MONOTONIC, &now);
		onvm_flow_table_set_time(flows, (uint64_t)now.tv_sec * 1000 +
							(uint64_t)now.tv_nsec / 1000000);
		onvm_flow_table_age(flows, AGE_BUDGET, steering);
		onvm_ports_release(&onvm_dp);
		if (nb_turns % RECYCLE_TURNS < step)
			recycle_paths(&onvm_dp);
		if (nb_turns % IDLE_TURNS < step && !onvm_dp.recycling.is_waiting)
			recycle_idle_paths(&onvm_dp);
		if (nb_turns % REVIVE_TURNS < step)
			onvm_ports_revive(&onvm_dp);
		nanosleep(&pause, NULL);
	}
	rte_thread_unregister();
	return 0;
}

int
onvm_housekeeping_start(void)
{
	int rc;

	is_running = 1;
	rc = onvm_control_thread_create(&thread, "onvm-housekeep", run_housekeeping);
	if (rc != 0)
		is_running = 0;
	return rc;
}

void
onvm_housekeeping_stop(void)
{
	if (!is_running)
		return;
	__atomic_store_n(&is_running, 0, __ATOMIC_RELEASE);
	onvm_control_thread_join(thread);
}
