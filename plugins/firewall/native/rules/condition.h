/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_CONDITION_H_
#define _ONVM_FIREWALL_CONDITION_H_

/** @file What an entry asks besides addresses, protocol and ports. */

#include <onvm/parse.h>

#include "limit.h"
#include "set.h"

/** A packet as conditional entries see it, and what they say. */
struct question {
	const struct onvm_pkt *pkt;
	const struct onvm_headers *headers;
	uint64_t now_ns;
	uint32_t end;	  /**< position at which to stop: the first behind the match of the ACL */
	uint8_t state;	  /**< enum firewall_state */
	bool is_far;	  /**< from the chain's far end */
	bool is_fragment; /**< a later one */
	bool has_chance;  /**< out: an entry would accept the fragment, if its ports fit */
};

struct conditions {
	struct firewall_condition *all;
	uint32_t *pairs;
	uint8_t *macs;
	struct address_set **sets;
	struct limits *limits;
	uint8_t *ports; /* rows of nb_columns; see firewall_bind_ports() */
	uint32_t nb, nb_sets, nb_columns, nb_ports;
};

int conditions_create(struct conditions *conditions, const struct firewall_config *config);
void conditions_free(struct conditions *conditions);
/** Whether all conditions of an entry are met. */
bool conditions_meet(struct conditions *conditions, const struct firewall_entry *entry,
		     const struct question *question);

#endif /* _ONVM_FIREWALL_CONDITION_H_ */
