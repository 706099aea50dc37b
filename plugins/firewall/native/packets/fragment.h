/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_FRAGMENT_H_
#define _ONVM_FIREWALL_FRAGMENT_H_

/**
 * @file
 * First fragments: their verdict holds for the fragments behind them.
 *
 * The table is small; the datagram whose first fragment came longest ago gives way.
 */

#include "../firewall.h"

#include <onvm/parse.h>

enum fragment_verdict {
	FRAGMENT_UNKNOWN, /**< its first fragment was not seen */
	FRAGMENT_PASS,
	FRAGMENT_DROP, /**< the first was dropped, or would be overwritten (RFC 5722) */
};

struct onvm_flow_table *fragment_table_create(void);
/** The verdict on a later fragment. */
enum fragment_verdict fragment_judge(struct firewall *firewall, const uint8_t *data,
				     const struct onvm_headers *headers, uint64_t now_ns);
/** Remember what was decided about a first fragment. */
void fragment_note(struct firewall *firewall, const uint8_t *data,
		   const struct onvm_headers *headers, uint64_t now_ns, bool has_passed);

#endif /* _ONVM_FIREWALL_FRAGMENT_H_ */
