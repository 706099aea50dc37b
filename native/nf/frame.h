/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_FRAME_H_
#define _ONVM_NF_FRAME_H_

/**
 * @file
 * The readings of one frame, for callers that cannot inline them.
 */

#include <stdint.h>

#include <onvm/nf.h>
#include <onvm/parse.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

/** onvm_parse() */
ONVM_EXPORT int
onvm_parse_frame(const uint8_t *data, uint32_t length, struct onvm_headers *headers);
/** onvm_verify_l3() in the upper four bits, onvm_verify_l4() in the lower. */
ONVM_EXPORT int onvm_verify_frame(const uint8_t *data, const struct onvm_headers *headers);

/** onvm_payload_of(): its offset in the upper 16 bits, its length in the lower. */
ONVM_EXPORT uint32_t onvm_pkt_payload(const struct onvm_pkt *pkt);
/** onvm_pkt_time_ns() */
ONVM_EXPORT uint64_t onvm_pkt_time(const struct onvm_ctx *ctx, const struct onvm_pkt *pkt);
/** onvm_pkt_append() of @p length bytes; whether there was room for them. */
ONVM_EXPORT bool onvm_pkt_append_bytes(struct onvm_pkt *pkt, const uint8_t *bytes, uint32_t length);
/** onvm_checksums_make(); what the way out makes anyway is left to it. */
ONVM_EXPORT void onvm_pkt_make_checksums(struct onvm_pkt *pkt);

#endif /* _ONVM_NF_FRAME_H_ */
