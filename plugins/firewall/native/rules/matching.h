/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_MATCHING_H_
#define _ONVM_FIREWALL_MATCHING_H_

/** @file The conditional entries: found by bits.h, and asked in order. */

#include "condition.h"

int matching_create(const struct firewall_config *config, struct matching **matching);
void matching_free(struct matching *matching);
int matching_bind_ports(struct matching *matching, const uint8_t *table, uint32_t nb_ports);
/** Whether an entry asks for the state of packets. */
bool matching_asks_state(const struct matching *matching);
/** How many conditional entries there are. */
uint32_t matching_size(const struct matching *matching);
/** Position + 1 of the first entry with a verdict; 0: there is none before the end. */
uint32_t matching_find(struct firewall *firewall, uint64_t *counters, struct question *question);

#endif /* _ONVM_FIREWALL_MATCHING_H_ */
