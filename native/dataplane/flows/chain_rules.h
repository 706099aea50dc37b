/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CHAIN_RULES_H_
#define _ONVM_CHAIN_RULES_H_

/**
 * @file
 * Rules that choose the chain of a port's new flows by their 5-tuple (rte_acl). The first rule that
 * matches wins. A flow is classified once; afterwards the flow table knows its path.
 *
 * Threads: the control thread makes and frees rules, workers read them; immutable once published.
 */

#include "dataplane.h"
#include "flows/flow_table.h"

struct onvm_chain_rules;

/** Rules in order; NULL with errno EINVAL for an impossible one, or ENOMEM. */
struct onvm_chain_rules *onvm_chain_rules_create(const struct onvm_dp_rule *rules, uint32_t nb);
/** Chain of the first rule that a flow matches; 0: none does. */
uint16_t onvm_chain_rules_find(const struct onvm_chain_rules *rules, enum onvm_flow_kind kind,
			       const union onvm_flow_key *key);
void onvm_chain_rules_free(struct onvm_chain_rules *rules);

#endif /* _ONVM_CHAIN_RULES_H_ */
