/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_MIX_H_
#define _ONVM_MIX_H_

/**
 * @file
 * A hash that gives the same on every host of a cluster.
 */

#include <stdint.h>

/** 64-bit mixer of MurmurHash3: each bit of the result depends on each of @p word. */
static inline uint64_t
onvm_mix(uint64_t word)
{
	word = (word ^ word >> 33) * 0xff51afd7ed558ccdull;
	word = (word ^ word >> 33) * 0xc4ceb9fe1a85ec53ull;
	return word ^ word >> 33;
}

#endif /* _ONVM_MIX_H_ */
