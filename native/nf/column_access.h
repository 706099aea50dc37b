/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_COLUMN_ACCESS_H_
#define _ONVM_NF_COLUMN_ACCESS_H_

/**
 * @file
 * Columns from the inside: reading and writing the packets of one block.
 *
 * Packets are read in blocks that fit the nearest cache: the layouts of a block, then every column
 * that the last burst used, then the next block. Packets of a block that all have the same layout,
 * as those of one large transfer, are read and written without looking at each one's layout.
 */

#include <stdbool.h>

#include <onvm/nf.h>

#include "column_ids.h"

#define ONVM_MASK_COUNT ONVM_H_RARE_END
#define ONVM_COLUMN_BLOCK 64
#define ONVM_COLUMN_BLOCKS (ONVM_BURST_MAX / ONVM_COLUMN_BLOCK)

struct onvm_columns {
	struct onvm_ctx *ctx;
	struct onvm_pkt *pkts;
	uint32_t nb_pkts;
	uint32_t masks;		      /**< bit h: mask[h] is gathered */
	uint64_t gathered;	      /**< bit c: column c is gathered */
	uint64_t used;		      /**< bit c: this burst's handler asked for column c */
	uint64_t usual;		      /**< bit c: the last burst's did */
	int (*handler)(void *handle); /**< onvm_columns_handler */
	void *handle;
	uint64_t rare;			      /**< bit r: rare field r is gathered */
	uint8_t *rare_value[ONVM_RARE_COUNT]; /**< BURST_MAX entries, then as many originals */
	bool has_failed;
	bool has_layouts;
	bool alike[ONVM_COLUMN_BLOCKS]; /**< all packets of the block have the same layout */
	uint8_t *value[ONVM_COLUMN_COUNT];
	uint8_t *original[ONVM_COLUMN_COUNT];
	uint8_t *mask[ONVM_MASK_COUNT];
	struct onvm_layout layout[ONVM_BURST_MAX];
	uint8_t *data[ONVM_BURST_MAX]; /**< of the packets; side by side, for fewer cache lines */
};
static_assert(ONVM_COLUMN_COUNT <= 64, "one bit per column");
static_assert(ONVM_BURST_MAX % ONVM_COLUMN_BLOCK == 0, "a burst is whole blocks");

/** First packet behind @p block. */
static inline uint32_t
onvm_columns_block_end(const struct onvm_columns *columns, uint32_t block)
{
	const uint32_t end = (block + 1) * ONVM_COLUMN_BLOCK;

	return end < columns->nb_pkts ? end : columns->nb_pkts;
}

/** Read column @p id of the packets of @p block, whose layouts are known. */
void onvm_columns_gather(struct onvm_columns *columns, uint32_t id, uint32_t block);
/** Write the entries of column @p id that have changed into the packets of @p block. */
void onvm_columns_scatter(struct onvm_columns *columns, uint32_t id, uint32_t block);

#endif /* _ONVM_NF_COLUMN_ACCESS_H_ */
