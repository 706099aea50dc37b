/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Holding a draining NF host still, so that its state can be handed over: its paths have no room
 * for a while, and whoever wants to enter one waits in its port (admit.c).
 */

#include "control.h"

#include <errno.h>

int
onvm_dp_host_pause(uint32_t slot, uint32_t is_paused)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot == 0 || slot >= ONVM_HOSTS_MAX ||
	    (is_paused && dp->steering.hosts[slot].state != ONVM_HOST_DRAINING))
		return onvm_fail(-ENOENT, "NF host %u does not drain", slot);
	for (uint32_t w = 0; w < dp->config.nb_workers; w++)
		if (dp->links[w][slot] != NULL)
			__atomic_store_n(&dp->links[w][slot]->is_paused, is_paused != 0,
					 __ATOMIC_RELEASE);
	onvm_publish(dp);
	return 0;
}
