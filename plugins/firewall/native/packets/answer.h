/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_ANSWER_H_
#define _ONVM_FIREWALL_ANSWER_H_

/** @file Answers to rejected packets: resets and ICMP errors. */

#include <onvm/parse.h>

#include "../firewall.h"

/**
 * Make the answer in the buffer of the packet; it leaves by the port that the packet came in by.
 *
 * @return false: nothing may answer it; then nothing has changed
 */
bool answer_make(struct firewall *firewall, struct onvm_pkt *pkt,
		 const struct onvm_headers *headers, enum firewall_answer answer, uint64_t now_ns);

#endif /* _ONVM_FIREWALL_ANSWER_H_ */
