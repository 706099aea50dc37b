/* SPDX-License-Identifier: Apache-2.0 */
#include "control/housekeeping.h"

#include <time.h>

#include <rte_lcore.h>

#include "control/ports.h"
#include "control/publish.h"
#include "control_thread.h"
#include "steering/recycle.h"

/** Flows are aged this often, so many positions each time. */
#define HOUSEKEEPING_NS 10000000
#define AGE_BUDGET 65536
/** Turns between two looks at retired paths: each wakes the workers. */
#define RECYCLE_TURNS 10

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
	__atomic_store_n(&dp->recycling.wants_marks, 1, __ATOMIC_RELEASE);
	dp->recycling.is_waiting = all_have_passed(dp) && onvm_steering_hold_marked(steering) != 0;
	__atomic_store_n(&dp->recycling.wants_marks, 0, __ATOMIC_RELEASE);
	dp->recycling.since = dp->flows.passes;
}

static onvm_control_thread_result
run_housekeeping(void *arg)
{
	struct onvm_flow_table *flows = &onvm_dp.flows;
	struct onvm_steering *steering = &onvm_dp.steering;
	struct timespec pause = {.tv_nsec = HOUSEKEEPING_NS}, now;
	uint32_t nb_turns = 0;

	RTE_SET_USED(arg);
	/* rte_hash wants to know which thread deletes. */
	if (rte_thread_register() != 0)
		return 0;
	while (__atomic_load_n(&is_running, __ATOMIC_ACQUIRE)) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		onvm_flow_table_set_time(flows, (uint64_t)now.tv_sec * 1000 +
							(uint64_t)now.tv_nsec / 1000000);
		onvm_flow_table_age(flows, AGE_BUDGET,
				    __atomic_load_n(&steering->nb_retired, __ATOMIC_ACQUIRE) == 0 ?
					    NULL :
					    steering);
		onvm_ports_release(&onvm_dp);
		if (++nb_turns % RECYCLE_TURNS == 0)
			recycle_paths(&onvm_dp);
		if (nb_turns % REVIVE_TURNS == 0)
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
