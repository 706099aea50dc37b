/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Holding a draining NF host still, so that its state can be handed over: its paths have no room
 * for a while, and whoever wants to enter one waits in its port (admit.c). Giving up claims of what
 * was taken over.
 */

#include "control/publish.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

int
onvm_dp_host_unclaim(uint32_t slot, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
		     uint32_t first_port, uint32_t end_port)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_claims *old = dp->steering.claims, *claims;
	struct onvm_claim wanted = {.ip_version = ip_version,
				    .protocol = protocol,
				    .first_port = first_port,
				    .end_port = end_port};

	memcpy(wanted.address, address, ip_version == 4 ? 4 : 16);
	if (old == NULL)
		return 0;
	claims = calloc(1, sizeof(*claims) + old->nb * sizeof(claims->entries[0]));
	if (claims == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < old->nb; i++)
		if (old->entries[i].host != slot ||
		    memcmp(&old->entries[i].claim, &wanted, sizeof(wanted)) != 0)
			claims->entries[claims->nb++] = old->entries[i];
	__atomic_store_n(&dp->steering.claims, claims, __ATOMIC_RELEASE);
	onvm_publish(dp);
	free(old);
	return 0;
}
