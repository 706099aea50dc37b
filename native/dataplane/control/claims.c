/* SPDX-License-Identifier: Apache-2.0 */
#include "control/claims.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/publish.h"
#include "steering/claims.h"

/** Remove the claims of @p slot, or add @p entry; publishes. */
static int
change_claims(struct onvm_dataplane *dp, uint16_t slot, const struct onvm_claim_entry *entry)
{
	struct onvm_claims *old = dp->steering.claims;
	const uint32_t nb_old = old == NULL ? 0 : old->nb;
	uint32_t nb_own = 0;
	struct onvm_claims *claims =
		calloc(1, sizeof(*claims) + (nb_old + 1) * sizeof(claims->entries[0]));

	if (claims == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < nb_old; i++)
		nb_own += old->entries[i].host == slot;
	if (entry != NULL && nb_own == ONVM_CLAIMS_MAX) {
		free(claims);
		return onvm_fail(-ENOSPC, "an NF host may make up to %u claims", ONVM_CLAIMS_MAX);
	}
	for (uint32_t i = 0; i < nb_old; i++)
		if (entry != NULL || old->entries[i].host != slot)
			claims->entries[claims->nb++] = old->entries[i];
	if (entry != NULL)
		claims->entries[claims->nb++] = *entry;
	/* P1: pairs with the acquire load P2 in claimed_path(). */
	__atomic_store_n(&dp->steering.claims, claims, __ATOMIC_RELEASE);
	onvm_publish(dp);
	free(old);
	return 0;
}

int
onvm_claims_remove(struct onvm_dataplane *dp, uint16_t slot)
{
	return dp->steering.claims == NULL ? 0 : change_claims(dp, slot, NULL);
}

int
onvm_dp_host_claim(uint32_t slot, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
		   uint32_t first_port, uint32_t end_port)
{
	struct onvm_claim_entry entry = {.host = (uint16_t)slot};

	if (slot == 0 || slot >= ONVM_SLOTS_MAX || (ip_version != 4 && ip_version != 6) ||
	    first_port >= end_port || end_port > 65536)
		return onvm_fail(-EINVAL, "claim of NF host %u: ports [%u, %u) of IPv%u", slot,
				 first_port, end_port, ip_version);
	memcpy(entry.claim.address, address, onvm_address_bytes(ip_version));
	entry.claim.ip_version = ip_version;
	entry.claim.protocol = protocol;
	entry.claim.first_port = first_port;
	entry.claim.end_port = end_port;
	return change_claims(&onvm_dp, (uint16_t)slot, &entry);
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

	memcpy(wanted.address, address, onvm_address_bytes(ip_version));
	if (old == NULL)
		return 0;
	claims = calloc(1, sizeof(*claims) + old->nb * sizeof(claims->entries[0]));
	if (claims == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < old->nb; i++)
		if (old->entries[i].host != slot ||
		    memcmp(&old->entries[i].claim, &wanted, sizeof(wanted)) != 0)
			claims->entries[claims->nb++] = old->entries[i];
	/* P1: pairs with the acquire load P2 in claimed_path(). */
	__atomic_store_n(&dp->steering.claims, claims, __ATOMIC_RELEASE);
	onvm_publish(dp);
	free(old);
	return 0;
}
