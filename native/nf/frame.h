/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_FRAME_H_
#define _ONVM_NF_FRAME_H_

/**
 * @file
 * The readings of one frame, for callers that cannot inline them.
 */

#include <stdint.h>

#include <onvm/parse.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

/** onvm_parse() */
ONVM_EXPORT int
onvm_parse_frame(const uint8_t *data, uint32_t length, struct onvm_headers *headers);
/** onvm_verify_l3() in the upper four bits, onvm_verify_l4() in the lower. */
ONVM_EXPORT int onvm_verify_frame(const uint8_t *data, const struct onvm_headers *headers);

#endif /* _ONVM_NF_FRAME_H_ */
