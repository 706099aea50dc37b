/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_BUCKET_H_
#define _ONVM_FIREWALL_BUCKET_H_

/** @file A token bucket whose tokens are time. */

#include "../firewall.h"

/** Take a token of @p cost_ns; @return whether there was one. A bucket of zeros begins full. */
static inline bool
bucket_take(struct firewall_bucket *bucket, uint64_t cost_ns, uint64_t cap_ns, uint64_t now_ns)
{
	if (bucket->seen_ns == 0)
		bucket->saved_ns = cap_ns;
	else if (now_ns > bucket->seen_ns)
		bucket->saved_ns += now_ns - bucket->seen_ns;
	if (bucket->saved_ns > cap_ns)
		bucket->saved_ns = cap_ns;
	bucket->seen_ns = now_ns;
	if (bucket->saved_ns < cost_ns)
		return false;
	bucket->saved_ns -= cost_ns;
	return true;
}

#endif /* _ONVM_FIREWALL_BUCKET_H_ */
