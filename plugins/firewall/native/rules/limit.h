/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_LIMIT_H_
#define _ONVM_FIREWALL_LIMIT_H_

/** @file Limits of rules: a bucket for each, or one for each end; the end seen longest ago gives way. */

#include "../firewall.h"

struct limits;

/** NULL leaves the reason in errno. */
struct limits *limits_create(const struct firewall_config *config);
void limits_free(struct limits *limits);
/** Take a token; @return whether the condition is met. @param ends  source and destination */
bool limits_match(struct limits *limits, uint32_t limit, uint8_t ip_version, const uint8_t *ends,
		  uint64_t now_ns);

#endif /* _ONVM_FIREWALL_LIMIT_H_ */
