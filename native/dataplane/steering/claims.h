/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CLAIMS_H_
#define _ONVM_CLAIMS_H_

/**
 * @file
 * Claims: traffic that belongs to one NF instance alone, such as the ports of a NAT's address.
 *
 * Threads: the control thread publishes a new set for each change; workers read.
 */

#include <stdint.h>

#include <onvm/wire.h>

/** A claim and the NF host it belongs to. */
struct onvm_claim_entry {
	struct onvm_claim claim;
	uint16_t host;
};

/** All claims; immutable once published. */
struct onvm_claims {
	uint32_t nb;
	struct onvm_claim_entry entries[];
};

/** Host that has claimed a destination (address in network, port in host order); 0: none. */
uint16_t onvm_claims_find(const struct onvm_claims *claims, uint8_t ip_version,
			  const uint8_t *address, uint8_t protocol, uint16_t port);

#endif /* _ONVM_CLAIMS_H_ */
