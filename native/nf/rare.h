/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_RARE_H_
#define _ONVM_NF_RARE_H_

/**
 * @file
 * onvm/rare.h for callers that cannot inline it, and the table of its fields.
 */

#include <onvm/fields.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

/** Field @p id of ONVM_RARE_FIELDS, and its name ("arp.operation"). */
ONVM_EXPORT const struct onvm_field *onvm_rare_field(uint32_t id);
ONVM_EXPORT const char *onvm_rare_field_name(uint32_t id);
/** Whether a packet has a header; @p layout_word is onvm_layout_word(). */
ONVM_EXPORT bool
onvm_pkt_has_rare(const struct onvm_pkt *pkt, uint64_t layout_word, uint32_t header);
ONVM_EXPORT uint64_t onvm_pkt_rare_load(const struct onvm_pkt *pkt, uint64_t layout_word,
					uint32_t id);
ONVM_EXPORT void
onvm_pkt_rare_store(const struct onvm_pkt *pkt, uint64_t layout_word, uint32_t id, uint64_t value);

#endif /* _ONVM_NF_RARE_H_ */
