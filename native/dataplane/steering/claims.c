/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/claims.h"

#include <string.h>

uint16_t
onvm_claims_find(const struct onvm_claims *claims, uint8_t ip_version, const uint8_t *address,
		 uint8_t protocol, uint16_t port)
{
	for (uint32_t i = 0; i < claims->nb; i++) {
		const struct onvm_claim *claim = &claims->entries[i].claim;

		if (claim->ip_version == ip_version &&
		    memcmp(claim->address, address, onvm_address_bytes(ip_version)) == 0 &&
		    (claim->protocol == 0 || claim->protocol == protocol) &&
		    port >= claim->first_port && port < claim->end_port)
			return claims->entries[i].host;
	}
	return 0;
}
