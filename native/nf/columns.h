/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_COLUMNS_H_
#define _ONVM_COLUMNS_H_

/**
 * @file
 * Columns: the header fields of a burst as arrays, one entry per packet.
 *
 * Life of a burst: onvm_columns_begin() reads every packet's layout and brings its headers into
 * the cache; the first use of a column gathers it in host byte order and keeps a copy;
 * onvm_columns_flush() stores the entries that differ from the copy, with their checksums.
 * Arrays are allocated on first use of a column and reused by all later bursts.
 *
 * onvm_columns_kernel() does this around a Python handler; its state is the struct onvm_columns.
 *
 * Threads: one per struct onvm_columns.
 */

#include <stdint.h>

#include <onvm/tuple.h>

#include "column_ids.h"

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

struct onvm_columns;

/** Calls the author's handler; less than 0: it raised. */
typedef int (*onvm_columns_handler)(void *handle);

/** @return NULL without memory */
ONVM_EXPORT struct onvm_columns *onvm_columns_create(onvm_columns_handler handler, void *handle);
ONVM_EXPORT void onvm_columns_free(struct onvm_columns *columns);

/** The kernel; a burst whose handler raised, and all after it, are dropped. */
ONVM_EXPORT void onvm_columns_kernel(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);

ONVM_EXPORT void onvm_columns_begin(struct onvm_columns *columns, struct onvm_ctx *ctx,
				    struct onvm_pkt *pkts, uint32_t nb_pkts);
ONVM_EXPORT void onvm_columns_flush(struct onvm_columns *columns);
ONVM_EXPORT uint32_t onvm_columns_length(const struct onvm_columns *columns);
ONVM_EXPORT struct onvm_ctx *onvm_columns_ctx(const struct onvm_columns *columns);
/** Packet @p row, for a view of it; all columns are written back, and gathered again when used. */
ONVM_EXPORT struct onvm_pkt *onvm_columns_packet(struct onvm_columns *columns, uint32_t row);

/** Array of column @p id, gathered if it is not yet; NULL without memory. */
ONVM_EXPORT void *onvm_columns_get(struct onvm_columns *columns, uint32_t id);
/** Bytes of one entry of column @p id; more than 8: that many bytes in network order. */
ONVM_EXPORT uint32_t onvm_columns_entry_bytes(uint32_t id);
/** Array of bytes, 1 where the packet has @p header (a bit of onvm_layout.flags). */
ONVM_EXPORT uint8_t *onvm_columns_mask(struct onvm_columns *columns, uint32_t header);

/** As push, behind the packets; @p bytes is not NULL. */
ONVM_EXPORT void
onvm_columns_append(struct onvm_columns *columns, const uint8_t *mask, uint32_t length,
		    const uint8_t *bytes, uint32_t stride, uint8_t *done);
ONVM_EXPORT void onvm_columns_trim(struct onvm_columns *columns, const uint8_t *mask,
				   uint32_t length, uint8_t *done);
/** onvm_checksums_make() of the packets where @p mask is not 0; all columns are written back. */
ONVM_EXPORT void onvm_columns_make_checksums(struct onvm_columns *columns, const uint8_t *mask);
/** @p length bytes of each payload from @p offset on; zeros behind its end. */
ONVM_EXPORT void onvm_columns_payload(struct onvm_columns *columns, uint32_t offset,
				      uint32_t length, uint8_t *bytes);
/** Give the packets where @p mask is not 0 a verdict; NULL: all. */
ONVM_EXPORT void onvm_columns_decide(struct onvm_columns *columns, const uint8_t *mask,
				     uint32_t verdict, uint32_t destination);
/** Hold the packets where @p mask is not 0; @p tokens gets each one's token, 0 elsewhere. */
ONVM_EXPORT void
onvm_columns_hold(struct onvm_columns *columns, const uint8_t *mask, uint32_t *tokens);
/**
 * Make space for @p length bytes before the packets where @p mask is not 0, and fill it.
 *
 * @param bytes   what to fill in; NULL: zeros
 * @param stride  bytes from one packet's filling to the next one's; 0: the same for all
 * @param done    becomes 1 where it was done, 0 elsewhere
 */
ONVM_EXPORT void
onvm_columns_push(struct onvm_columns *columns, const uint8_t *mask, uint32_t length,
		  const uint8_t *bytes, uint32_t stride, uint8_t *done);
ONVM_EXPORT void onvm_columns_pull(struct onvm_columns *columns, const uint8_t *mask,
				   uint32_t length, uint8_t *done);
/**
 * Make a packet.
 *
 * @return 0, -EPERM without the permission, -ENOBUFS without a buffer, -EMSGSIZE when it does not
 * fit one
 */
ONVM_EXPORT int onvm_originate(struct onvm_ctx *ctx, const uint8_t *bytes, uint32_t length,
			       uint32_t verdict, uint32_t destination);
/** The table of onvm/fields.h, ONVM_FIELD_COUNT long, and its names ("ipv4.ttl"). */
ONVM_EXPORT const struct onvm_field *onvm_field_table(void);
ONVM_EXPORT const char *onvm_field_name(uint32_t id);
/** onvm_layout_of() as a number, for compiled kernels. */
ONVM_EXPORT uint64_t onvm_layout_word(const struct onvm_pkt *pkt);
/** onvm_tuple_read() with such a number. */
ONVM_EXPORT void
onvm_flow_key(const struct onvm_pkt *pkt, uint64_t layout_word, struct onvm_tuple *key);

#endif /* _ONVM_COLUMNS_H_ */
