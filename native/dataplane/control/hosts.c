/* SPDX-License-Identifier: Apache-2.0 */

/*
 * NF hosts of this machine: their states from added to free, and what happens to their flows.
 */

#include "control/hosts.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/attach_files.h"
#include "control/claims.h"
#include "control/numbers.h"
#include "control/publish.h"
#include "steering/retire.h"

int
onvm_dp_host_add(const uint16_t *services, uint32_t nb_stages, uint32_t nb_loaned, int node,
		 struct onvm_dp_attach_files *files)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_host *host = NULL;
	uint32_t slot;
	int rc;

	if (nb_stages == 0 || nb_stages > ONVM_STAGES_MAX || nb_loaned > dp->config.ring_length / 2)
		return onvm_fail(-EINVAL,
				 "%u stages, %u loaned buffers: expected 1 to %u and up to %u",
				 nb_stages, nb_loaned, ONVM_STAGES_MAX, dp->config.ring_length / 2);
	for (slot = 1; slot < ONVM_HOSTS_MAX; slot++)
		if (dp->steering.hosts[slot].state == ONVM_HOST_FREE)
			break;
	if (slot == ONVM_HOSTS_MAX)
		return onvm_fail(-ENOSPC, "all %u slots for NF hosts are taken",
				 ONVM_HOSTS_MAX - 1);
	host = &dp->steering.hosts[slot];
	host->nb_stages = (uint8_t)nb_stages;
	memset(host->services, 0, sizeof(host->services));
	memcpy(host->services, services, nb_stages * sizeof(*services));
	host->spare_pps = 0;
	rc = onvm_attach_files_make(dp, slot, nb_loaned, node, files);
	if (rc != 0)
		return onvm_fail(rc, "attach area: %s", strerror(-rc));
	/* P1: pairs with the acquire load P2 in take_over_links(). */
	__atomic_store_n(&host->state, ONVM_HOST_ATTACHED, __ATOMIC_RELEASE);
	onvm_publish(dp);
	return (int)slot;
}

static int
set_host_state(uint32_t slot, enum onvm_host_state from, enum onvm_host_state to)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot == 0 || slot >= ONVM_SLOTS_MAX || dp->steering.hosts[slot].state != from)
		return onvm_fail(-ENOENT, "NF host %u is not in the state for this", slot);
	__atomic_store_n(&dp->steering.hosts[slot].state, (uint8_t)to, __ATOMIC_RELEASE);
	return onvm_publish_candidates(dp);
}

int
onvm_dp_host_activate(uint32_t slot)
{
	const bool drains = slot < ONVM_SLOTS_MAX &&
			    onvm_dp.steering.hosts[slot].state == ONVM_HOST_DRAINING;

	return set_host_state(slot, drains ? ONVM_HOST_DRAINING : ONVM_HOST_ATTACHED,
			      ONVM_HOST_ACTIVE);
}

int
onvm_dp_host_drain(uint32_t slot)
{
	return set_host_state(slot, ONVM_HOST_ACTIVE, ONVM_HOST_DRAINING);
}

int
onvm_dp_host_limit(uint32_t slot, uint32_t reads_only, uint32_t no_drops)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot == 0 || slot >= ONVM_HOSTS_MAX ||
	    dp->steering.hosts[slot].state != ONVM_HOST_ATTACHED)
		return onvm_fail(-ENOENT, "NF host %u is not in the state for this", slot);
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		struct onvm_link *link = dp->links[w][slot];

		if (link == NULL)
			continue;
		link->reads_only = reads_only != 0;
		link->no_drops = (uint16_t)no_drops;
		link->is_limited = link->reads_only || link->no_drops != 0;
	}
	return 0;
}

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
onvm_dp_host_leave(uint32_t slot, uint32_t successor)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_host *host = &dp->steering.hosts[slot];

	if (slot == 0 || slot >= ONVM_HOSTS_MAX || successor >= ONVM_SLOTS_MAX ||
	    (host->state != ONVM_HOST_ACTIVE && host->state != ONVM_HOST_DRAINING))
		return onvm_fail(-ENOENT, "NF host %u does not serve", slot);
	__atomic_store_n(&host->state, ONVM_HOST_LEAVING, __ATOMIC_RELEASE);
	onvm_publish_candidates(dp);
	onvm_steering_retire_host(&dp->steering, (uint16_t)slot, (uint16_t)successor);
	/* From here on no worker admits a packet to a path of the host. */
	onvm_publish(dp);
	return onvm_claims_remove(dp, (uint16_t)slot);
}

void
onvm_host_end(struct onvm_dataplane *dp, uint32_t slot, uint32_t successor)
{
	struct onvm_host *host = &dp->steering.hosts[slot];
	struct onvm_old_candidates old;

	/* Its flows get successors before the workers lose it. Workers may take over at any time,
	 * because housekeeping publishes too: so the state DEAD comes last. */
	__atomic_store_n(&host->state, ONVM_HOST_LEAVING, __ATOMIC_RELEASE);
	onvm_swap_candidates(dp, &old);
	onvm_steering_retire_host(&dp->steering, (uint16_t)slot, (uint16_t)successor);
	/* P1: pairs with the acquire load P2 in take_over_links(). */
	__atomic_store_n(&host->state, ONVM_HOST_DEAD, __ATOMIC_RELEASE);
	onvm_publish(dp);
	onvm_free_candidates(&old);
	/* No worker chooses it any more; before, one may have made another path. */
	onvm_steering_retire_host(&dp->steering, (uint16_t)slot, (uint16_t)successor);
	onvm_claims_remove(dp, (uint16_t)slot);
	onvm_host_set_number(dp, slot, 0);
}

void
onvm_host_free_slot(struct onvm_dataplane *dp, uint32_t slot)
{
	struct onvm_host *host = &dp->steering.hosts[slot];

	host->generation++;
	__atomic_store_n(&host->state, ONVM_HOST_FREE, __ATOMIC_RELEASE);
}

int
onvm_dp_host_remove(uint32_t slot, struct onvm_dp_host_stats *last)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot == 0 || slot >= ONVM_HOSTS_MAX || dp->steering.hosts[slot].state == ONVM_HOST_FREE)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	onvm_host_end(dp, slot, 0);
	if (last != NULL)
		onvm_dp_read_host(slot, last);
	onvm_attach_files_free(dp, slot);
	onvm_host_free_slot(dp, slot);
	return 0;
}

/** Wake a host that sleeps. S2: pairs with S1; what it is to see was stored before. */
static void
wake(struct onvm_area_control *control)
{
	__atomic_store_n(&control->sleeping, 0, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &control->sleeping, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int
onvm_dp_host_attention(uint32_t slot)
{
	struct onvm_link *link = slot < ONVM_HOSTS_MAX ? onvm_dp.links[0][slot] : NULL;

	if (link == NULL)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	__atomic_add_fetch(&link->control->attention, 1, __ATOMIC_SEQ_CST);
	wake(link->control);
	return 0;
}

int
onvm_dp_host_share_cpu(uint32_t slot, uint32_t shares_cpu)
{
	struct onvm_link *link = slot < ONVM_HOSTS_MAX ? onvm_dp.links[0][slot] : NULL;

	if (link == NULL)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	__atomic_store_n(&link->control->shares_cpu, shares_cpu != 0, __ATOMIC_SEQ_CST);
	wake(link->control);
	return 0;
}

int
onvm_dp_host_spare_pps(uint32_t slot, uint32_t spare_pps)
{
	if (slot == 0 || slot >= ONVM_SLOTS_MAX)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	__atomic_store_n(&onvm_dp.steering.hosts[slot].spare_pps, spare_pps, __ATOMIC_RELAXED);
	return 0;
}
