/* SPDX-License-Identifier: Apache-2.0 */
#include "control/publish.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "steering/candidates.h"

struct onvm_dataplane onvm_dp;

static char error_line[512];

int
onvm_fail(int result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error_line, sizeof(error_line), format, args);
	va_end(args);
	return result;
}

const char *
onvm_dp_error(void)
{
	return error_line;
}

void
onvm_wake_workers(struct onvm_dataplane *dp)
{
	const uint64_t one = 1;

	for (uint32_t i = 0; i < dp->config.nb_workers; i++)
		if (write(dp->workers[i].event_fd, &one, sizeof(one)) < 0)
			continue; /* awake already */
}

void
onvm_publish(struct onvm_dataplane *dp)
{
	/* P3: pairs with the acquire load P4 in onvm_worker_run(). */
	const uint32_t epoch = __atomic_add_fetch(&dp->epoch, 1, __ATOMIC_ACQ_REL);

	onvm_wake_workers(dp);
	for (uint32_t i = 0; i < dp->config.nb_workers; i++) {
		struct onvm_worker *worker = &dp->workers[i];

		/* P6: `seen` pairs with the release store P5 in take_over(). */
		while (__atomic_load_n(&worker->is_running, __ATOMIC_ACQUIRE) &&
		       !__atomic_load_n(&dp->must_stop, __ATOMIC_ACQUIRE) &&
		       (int32_t)(__atomic_load_n(&worker->seen, __ATOMIC_ACQUIRE) - epoch) < 0)
			usleep(20);
	}
}

int
onvm_swap_candidates(struct onvm_dataplane *dp, struct onvm_old_candidates *old)
{
	int rc = 0;

	for (uint16_t id = 1; id < ONVM_CHAINS_MAX; id++) {
		struct onvm_chain *chain = &dp->steering.chains[id];
		struct onvm_candidates *candidates;

		old->of[id] = NULL;
		if (!chain->is_used)
			continue;
		pthread_mutex_lock(&dp->steering.changes);
		candidates = onvm_steering_candidates(&dp->steering, id);
		if (candidates == NULL) /* the old ones may name paths that will be retired */
			rc = onvm_fail(-ENOMEM, "chain %u: out of memory", id);
		old->of[id] = chain->candidates;
		/* P1: pairs with the acquire loads P2 of workers. */
		__atomic_store_n(&chain->candidates, candidates, __ATOMIC_RELEASE);
		pthread_mutex_unlock(&dp->steering.changes);
	}
	return rc;
}

void
onvm_free_candidates(struct onvm_old_candidates *old)
{
	/* Housekeeping may look at them. */
	pthread_mutex_lock(&onvm_dp.steering.changes);
	for (uint16_t id = 1; id < ONVM_CHAINS_MAX; id++)
		onvm_steering_free_candidates(old->of[id]);
	pthread_mutex_unlock(&onvm_dp.steering.changes);
}

int
onvm_publish_candidates(struct onvm_dataplane *dp)
{
	struct onvm_old_candidates old;
	const int rc = onvm_swap_candidates(dp, &old);

	onvm_publish(dp);
	onvm_free_candidates(&old);
	return rc;
}
