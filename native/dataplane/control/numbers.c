/* SPDX-License-Identifier: Apache-2.0 */
#include "control/numbers.h"

#include <errno.h>

#include "control/publish.h"

void
onvm_host_set_number(struct onvm_dataplane *dp, uint32_t slot, uint16_t number)
{
	struct onvm_host *host = &dp->steering.hosts[slot];
	uint16_t *slots = dp->steering.slots;

	if (host->number == number)
		return;
	if (host->number != 0 && slots[host->number] == slot)
		__atomic_store_n(&slots[host->number], 0, __ATOMIC_RELEASE);
	__atomic_store_n(&host->number, number, __ATOMIC_RELEASE);
	if (number != 0) {
		/* N1: pairs with the acquire loads N2 in serving(). */
		__atomic_store_n(&dp->steering.successors[number], number, __ATOMIC_RELEASE);
		__atomic_store_n(&slots[number], (uint16_t)slot, __ATOMIC_RELEASE);
	}
	onvm_publish(dp);
}

int
onvm_dp_number_successor(uint32_t number, uint32_t successor)
{
	if (number == 0 || number >= ONVM_NUMBERS_MAX || successor == 0 ||
	    successor >= ONVM_NUMBERS_MAX)
		return onvm_fail(-EINVAL, "NF host %u as successor of %u", successor, number);
	/* N1: pairs with the acquire load N2 in serving(). */
	__atomic_store_n(&onvm_dp.steering.successors[number], (uint16_t)successor,
			 __ATOMIC_RELEASE);
	return 0;
}

int
onvm_dp_host_number(uint32_t slot, uint32_t number)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot == 0 || slot >= ONVM_HOSTS_MAX ||
	    dp->steering.hosts[slot].state == ONVM_HOST_FREE || number >= ONVM_NUMBERS_MAX)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	onvm_host_set_number(dp, slot, (uint16_t)number);
	/* It can serve chains that span hosts now, or no more. */
	return onvm_publish_candidates(dp);
}
