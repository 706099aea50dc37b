/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_RTT_H_
#define _ONVM_GEN_RTT_H_

/**
 * @file
 * Smoothed round-trip time (RFC 6298 section 2) and the timeout that follows it.
 *
 * The generator never retransmits, so a false alarm costs a connection. Its timeout is therefore
 * four times the RFC's, and between 1/25 s and 1 s.
 */

#include <stdint.h>

#include <rte_common.h>

#define ONVM_GEN_TIMEOUT_MIN_PER_S 25

/** In TSC cycles; 0: not measured yet. */
struct onvm_gen_rtt {
	uint64_t smoothed, deviation;
};

static inline void
onvm_gen_rtt_add(struct onvm_gen_rtt *rtt, uint64_t cycles)
{
	const uint64_t error = cycles > rtt->smoothed ? cycles - rtt->smoothed :
							rtt->smoothed - cycles;

	if (rtt->smoothed == 0) {
		rtt->smoothed = cycles;
		rtt->deviation = cycles / 2;
		return;
	}
	rtt->deviation = (rtt->deviation * 3 + error) / 4;
	rtt->smoothed = (rtt->smoothed * 7 + cycles) / 8;
}

static inline uint64_t
onvm_gen_rtt_timeout(const struct onvm_gen_rtt *rtt, uint64_t hz)
{
	const uint64_t timeout = 4 * (rtt->smoothed + 4 * rtt->deviation);

	if (rtt->smoothed == 0)
		return hz;
	return RTE_MIN(RTE_MAX(timeout, hz / ONVM_GEN_TIMEOUT_MIN_PER_S), hz);
}

#endif /* _ONVM_GEN_RTT_H_ */
