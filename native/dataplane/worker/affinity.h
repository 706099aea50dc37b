/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_AFFINITY_H_
#define _ONVM_AFFINITY_H_

/**
 * @file
 * Services whose instances addresses decide: all flows of an address get the same instance of a
 * service that wants that, in both directions and in every chain.
 *
 * An address and its instance are an entry of the flow table, under a key that no packet has: the
 * address, and the service. The entry has the path of the first flow, of which only the instance of
 * the service counts. So what holds for flows holds for addresses: when an instance dies or hands
 * its state over, the entry follows the successors of its path; when instances are added, it stays.
 * It lives as long as flows name it as their owner (flows/ageing.h).
 *
 * Where the table has no room for an address, a hash decides, which is the same for all its flows.
 *
 * Threads: workers. Two that meet an address at the same time agree on the path of the first.
 */

#include "worker/worker.h"

/** Where the new flows of a port go: a chain, and from which of its ends. */
struct onvm_chain_entry {
	uint16_t chain;
	bool is_far;
	const struct onvm_candidates *candidates;
};

/** An address of a new flow, and its entry in the flow table. */
struct onvm_owner {
	uint16_t service;
	uint16_t known; /**< path of the entry; 0: there is none, or one without a path */
	bool has_wish;	/**< its instance is known; else it is to be that of the flow's path */
	enum onvm_flow_kind kind;
	union onvm_flow_key key;
	uint32_t hash;
	uint32_t position; /**< or ONVM_FLOW_NONE */
};

/** Addresses that decide the path of a flow. */
struct onvm_owners {
	uint32_t nb;
	bool is_full; /**< the table has no room for one of them */
	struct onvm_owner of[ONVM_AFFINITIES_MAX];
};

/** Wish for the instances that the addresses of packet @p i have; what is wished counts more. */
void onvm_affinity_wishes(const struct onvm_worker *worker, const struct onvm_burst *burst,
			  uint32_t i, const struct onvm_chain_entry *entry,
			  struct onvm_wishes *wishes, struct onvm_owners *owners);
/**
 * Keep the instances of a forward path for the addresses that have none yet.
 *
 * @return false: another worker was quicker, or the table is full; the flow is to be chosen again
 */
bool onvm_affinity_keep(struct onvm_worker *worker, struct onvm_owners *owners, uint16_t path);
/** Let the flow at @p position keep its addresses. */
void onvm_affinity_own(struct onvm_flow_table *table, uint32_t position,
		       const struct onvm_owners *owners);

#endif /* _ONVM_AFFINITY_H_ */
