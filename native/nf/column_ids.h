/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_COLUMN_IDS_H_
#define _ONVM_NF_COLUMN_IDS_H_

/**
 * @file
 * Numbers of columns: the header fields of onvm/fields.h, then the packet's own values.
 */

#include <onvm/fields.h>

/** The packet's own values, besides header fields; read-only except for the verdict. */
enum onvm_meta {
	ONVM_META_length = ONVM_FIELD_COUNT, /**< uint16_t */
	ONVM_META_port,			     /**< uint16_t, ingress */
	ONVM_META_flow_hash,		     /**< uint32_t */
	ONVM_META_protocol,		     /**< uint8_t, behind IPv6 extension headers */
	ONVM_META_vlan_count,		     /**< uint8_t */
	ONVM_META_verdict,		     /**< uint8_t, writable */
	ONVM_META_destination,		     /**< uint16_t, writable */
	ONVM_META_flow_key,		     /**< struct onvm_tuple */
	ONVM_META_l3_offset,		     /**< uint16_t */
	ONVM_META_l4_offset,		     /**< uint16_t */
	ONVM_META_payload_length,	     /**< uint16_t */
	ONVM_META_time_ns,		     /**< uint64_t */
	ONVM_COLUMN_COUNT
};
static_assert(ONVM_COLUMN_COUNT <= 64, "sets of columns are words");

#endif /* _ONVM_NF_COLUMN_IDS_H_ */
