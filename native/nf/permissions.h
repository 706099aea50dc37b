/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PERMISSIONS_H_
#define _ONVM_NF_PERMISSIONS_H_

/**
 * @file
 * What the stages of an NF host may do to packets (onvm_nf_host_permit()).
 *
 * Packet memory is mapped without the right to write if no stage has it; a store ends the process,
 * after a line that says why. Drops of a stage that may not drop are undone, and its host stops.
 * This is for authors: a manager checks by itself what it can (worker/permissions.c).
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/nf.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

struct onvm_nf_host;
struct onvm_stage;

/** What a stage may do to packets, as its manifest says. */
enum onvm_permission {
	ONVM_MAY_WRITE = 1, /**< change packets, or make some */
	ONVM_MAY_DROP = 2,
};

/**
 * Limit what stage @p stage may do, to the enum onvm_permission in @p permissions; before that it
 * may do all. If no stage may write, packet memory is mapped so that none can.
 *
 * @return 0 or -EINVAL
 */
ONVM_EXPORT int
onvm_nf_host_permit(struct onvm_nf_host *host, uint32_t stage, uint32_t permissions);

/** The stage that did what it may not, by onvm_nf_host_run(), or -1; its packets were kept. */
ONVM_EXPORT int onvm_nf_host_offender(const struct onvm_nf_host *host);

/** Whether no stage of the host may write packets. */
bool onvm_nf_host_reads_only(const struct onvm_nf_host *host);

/**
 * Explain stores into packet memory, which is mapped without the right to write: a handler of
 * SIGSEGV that then leaves the rest to the handler before it.
 */
void onvm_explain_stores(const uint8_t *memory, uint64_t bytes);

/** Undo drops of a stage that may not drop; with a drop, the host has an offender and stops. */
void onvm_stage_undo_drops(struct onvm_stage *stage, struct onvm_pkt *pkts, uint32_t nb_pkts);

#endif /* _ONVM_NF_PERMISSIONS_H_ */
