/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_SORTING_H_
#define _ONVM_FIREWALL_SORTING_H_

/** @file What is decided about a packet before rules and connections. */

#include "../firewall.h"

#include <onvm/verify.h>

enum sorting {
	SORT_CANDIDATE,
	SORT_PASS,
	SORT_DROP,
};

/** Whether its transport checksum is wrong, or the IPv4 header's (@p with_header). */
bool sorting_is_damaged(const struct onvm_pkt *pkt, const struct onvm_headers *headers,
			bool with_header);
/** Frames without IP, unreadable packets and options; sets the reason of a drop. */
enum sorting sorting_decide(const struct firewall_config *config, const struct onvm_pkt *pkt,
			    const struct onvm_headers *headers, uint16_t *reason);

#endif /* _ONVM_FIREWALL_SORTING_H_ */
