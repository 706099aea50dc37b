/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_BURST_H_
#define _ONVM_NF_BURST_H_

/**
 * @file
 * A burst of an NF host: out of the ring, through the stages, back into the ring.
 */

#include "runtime.h"

/** Packets that wait at @p worker's ring, at most a burst. */
uint32_t onvm_burst_ready(struct onvm_nf_host *host, uint32_t worker);
/** Take @p nb of them, run them through the stages and give them back. */
void onvm_burst_process(struct onvm_nf_host *host, uint32_t worker, uint32_t nb);
/** onvm_ctx.originate */
struct onvm_pkt *onvm_burst_originate(struct onvm_ctx *ctx);
/** Pass on or return the packets that NFs have released. @return how many */
uint32_t onvm_burst_return_released(struct onvm_nf_host *host);
/** Return the packets that the NF has made. */
void onvm_burst_return_originated(struct onvm_nf_host *host);

#endif /* _ONVM_NF_BURST_H_ */
