/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_LATENCY_H_
#define _ONVM_LATENCY_H_

/**
 * @file
 * Histograms of latencies, with buckets that grow with what they hold.
 *
 * Threads: each histogram has one writer; any thread may read.
 */

#include <stdint.h>

/** Buckets of a latency histogram: four per power of two of nanoseconds, from 32 ns up. */
#define ONVM_LATENCY_BUCKETS 128

struct onvm_latency {
	uint64_t buckets[ONVM_LATENCY_BUCKETS];
};

/** Count a latency of @p ns nanoseconds. */
static inline void
onvm_latency_add(struct onvm_latency *latency, uint64_t ns)
{
	uint32_t exponent, bucket;

	if (ns < 32)
		ns = 32;
	exponent = 63u - (uint32_t)__builtin_clzll(ns);
	bucket = (exponent - 5) * 4 + (uint32_t)(ns >> (exponent - 2) & 3);
	latency->buckets[bucket < ONVM_LATENCY_BUCKETS ? bucket : ONVM_LATENCY_BUCKETS - 1]++;
}

#endif /* _ONVM_LATENCY_H_ */
