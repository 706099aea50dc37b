/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_EVENT_H_
#define _ONVM_FIREWALL_EVENT_H_

/** @file Packets that rules have logged, until Python writes them; what finds no space is lost. */

#include <onvm/parse.h>

#include "../firewall.h"

int event_ring_create(const struct firewall_config *config, struct event_ring **ring);
/** Keep what a log says about a packet. @return false: it is lost */
bool event_add(struct firewall *firewall, const struct onvm_pkt *pkt,
	       const struct onvm_headers *headers, uint32_t rule, uint64_t now_ns);

#endif /* _ONVM_FIREWALL_EVENT_H_ */
