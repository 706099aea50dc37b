/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_HOST_PRIV_H_
#define _ONVM_NF_HOST_PRIV_H_

/**
 * @file
 * Inside of an NF host: attach.c fills it, host.c runs it.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/ring.h>

#include "host.h"

/** Packets an NF may make during one burst. */
#define ONVM_ORIGINATED_MAX 64

struct onvm_stage {
	onvm_kernel kernel;
	struct onvm_ctx ctx;
	struct onvm_nf_host *host; /**< what ctx.runtime leads back to */
	uint32_t index;
};

/** The three rings shared with one worker lcore. */
struct onvm_worker_link {
	struct onvm_ring to_nf;
	struct onvm_ring from_nf;
	struct onvm_ring loan;
	int event_fd; /**< written to wake the worker */
};

struct onvm_nf_host {
	struct onvm_stage stages[ONVM_STAGES_MAX];
	uint32_t nb_stages;
	uint32_t burst_size;
	int socket; /**< -1 while not attached */
	struct onvm_attach_reply reply;
	uint8_t *memory; /**< packet memory */
	uint8_t *area;
	struct onvm_area_control *control;
	struct onvm_worker_link links[ONVM_WORKERS_MAX];
	uint32_t attention_seen;
	uint32_t interrupt; /**< atomic: onvm_nf_host_interrupt() was called */
	uint32_t nb_originated;
	uint64_t given_back;			     /**< when the last burst lay in the ring */
	uint64_t unused_counters[ONVM_COUNTERS_MAX]; /**< counted into while not attached */
	char error[600];
	struct onvm_pkt originated[ONVM_ORIGINATED_MAX];
	struct onvm_desc descs[ONVM_BURST_MAX + ONVM_ORIGINATED_MAX];
	struct onvm_desc returns[ONVM_BURST_MAX + ONVM_ORIGINATED_MAX];
	struct onvm_pkt pkts[ONVM_BURST_MAX];
};

/** Drop the mapping and the socket; the manager takes the buffers back. */
void onvm_nf_host_detach(struct onvm_nf_host *host);
/** Whether the manager's end of the socket is still open. */
bool onvm_nf_host_is_alive(const struct onvm_nf_host *host);

#endif /* _ONVM_NF_HOST_PRIV_H_ */
