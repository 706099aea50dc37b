/* SPDX-License-Identifier: Apache-2.0 */
#include "column_access.h"

#include <string.h>

#include <onvm/tuple.h>

#include "frame.h"

/* Of the packets of one block. Called with constant fields, so that each column gets loops of its
 * own; a layout that all have in common is taken out of the loop by the compiler. */
struct block {
	const struct onvm_pkt *pkts;
	const struct onvm_layout *layouts;
	uint8_t *const *data;
	uint32_t first;
	uint32_t end;
};

static ONVM_FIELD_INLINE void
set_entry(uint8_t *values, uint32_t i, uint32_t bytes, uint64_t value)
{
	switch (bytes) {
	case 1:
		values[i] = (uint8_t)value;
		break;
	case 2:
		((uint16_t *)(void *)values)[i] = (uint16_t)value;
		break;
	case 4:
		((uint32_t *)(void *)values)[i] = (uint32_t)value;
		break;
	default:
		((uint64_t *)(void *)values)[i] = value;
		break;
	}
}

static ONVM_FIELD_INLINE uint64_t
entry(const uint8_t *values, uint32_t i, uint32_t bytes)
{
	switch (bytes) {
	case 1:
		return values[i];
	case 2:
		return ((const uint16_t *)(const void *)values)[i];
	case 4:
		return ((const uint32_t *)(const void *)values)[i];
	default:
		return ((const uint64_t *)(const void *)values)[i];
	}
}

static ONVM_FIELD_INLINE void
gather_one(const struct block *block, uint32_t i, const struct onvm_layout *layout,
	   const struct onvm_field *field, uint8_t *values, uint32_t bytes)
{
	uint8_t *data = block->data[i];

	if (bytes != 6 && bytes != 16)
		set_entry(values, i, bytes, onvm_field_load(data, layout, field));
	else if (onvm_layout_has(layout, field->header))
		memcpy(values + (size_t)i * bytes,
		       onvm_header_at(data, layout, field->header) + field->offset, bytes);
	else
		memset(values + (size_t)i * bytes, 0, bytes);
}

static ONVM_FIELD_INLINE void
gather(const struct block *block, bool is_alike, const struct onvm_field *field, uint8_t *values,
       uint32_t bytes)
{
	const uint32_t end = block->end;

	if (is_alike) {
		const struct onvm_layout common = block->layouts[block->first];

		for (uint32_t i = block->first; i < end; i++)
			gather_one(block, i, &common, field, values, bytes);
	} else {
		for (uint32_t i = block->first; i < end; i++)
			gather_one(block, i, &block->layouts[i], field, values, bytes);
	}
}

static ONVM_FIELD_INLINE void
scatter_one(const struct block *block, uint32_t i, const struct onvm_layout *layout,
	    const struct onvm_field *field, const uint8_t *values, const uint8_t *originals,
	    uint32_t bytes)
{
	uint8_t *data = block->data[i];

	if (bytes == 6 || bytes == 16) {
		uint8_t *at = onvm_header_at(data, layout, field->header) + field->offset;
		const uint8_t *value = values + (size_t)i * bytes;

		if (memcmp(value, originals + (size_t)i * bytes, bytes) == 0 ||
		    !onvm_layout_has(layout, field->header))
			return;
		if (bytes == 6) {
			memcpy(at, value, 6);
			return;
		}
		onvm_field_replace(data, layout, field, at, 8, onvm_load_be(value, 8));
		onvm_field_replace(data, layout, field, at + 8, 8, onvm_load_be(value + 8, 8));
	} else if (entry(values, i, bytes) != entry(originals, i, bytes)) {
		onvm_field_store(data, layout, field, entry(values, i, bytes));
	}
}

static ONVM_FIELD_INLINE void
scatter(const struct block *block, bool is_alike, const struct onvm_field *field,
	const uint8_t *values, const uint8_t *originals, uint32_t bytes)
{
	const uint32_t end = block->end;

	if (is_alike) {
		const struct onvm_layout common = block->layouts[block->first];

		for (uint32_t i = block->first; i < end; i++)
			scatter_one(block, i, &common, field, values, originals, bytes);
	} else {
		for (uint32_t i = block->first; i < end; i++)
			scatter_one(block, i, &block->layouts[i], field, values, originals, bytes);
	}
}

#define ENTRY_BYTES(bits) ((bits) <= 8 ? 1 : (bits) <= 16 ? 2 : (bits) <= 32 ? 4 : (bits) / 8)

static struct block
block_of(const struct onvm_columns *columns, uint32_t block)
{
	return (struct block){.pkts = columns->pkts,
			      .layouts = columns->layout,
			      .data = columns->data,
			      .first = block * ONVM_COLUMN_BLOCK,
			      .end = onvm_columns_block_end(columns, block)};
}

void
onvm_columns_gather(struct onvm_columns *columns, uint32_t id, uint32_t index)
{
	const struct block block = block_of(columns, index);
	const bool is_alike = columns->alike[index];
	uint8_t *values = columns->value[id];

	switch (id) {
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable)                       \
	case ONVM_FIELD_##header##_##name:                                                     \
		gather(&block, is_alike,                                                       \
		       &(const struct onvm_field){ONVM_H_##header, offset, bytes, shift, bits, \
						  sums, writable},                             \
		       values, ENTRY_BYTES(bits));                                             \
		break;
		ONVM_FIELDS(ONVM_X)
#undef ONVM_X
#define META(name, type, expression)                                      \
	case ONVM_META_##name:                                            \
		for (uint32_t i = block.first; i < block.end; i++)        \
			((type *)(void *)values)[i] = (type)(expression); \
		break;
		META(length, uint16_t, block.pkts[i].length)
		META(port, uint16_t, block.pkts[i].port)
		META(flow_hash, uint32_t, block.pkts[i].flow_hash)
		META(protocol, uint8_t, block.layouts[i].protocol)
		META(vlan_count, uint8_t,
		     onvm_layout_has(&block.layouts[i], ONVM_H_VLAN) ?
			     (block.layouts[i].l3 - 14) / 4 :
			     0)
		META(verdict, uint8_t, block.pkts[i].verdict)
		META(destination, uint16_t, block.pkts[i].destination)
		META(l3_offset, uint16_t, block.layouts[i].l3)
		META(l4_offset, uint16_t, block.layouts[i].l4)
		META(payload_length, uint16_t, onvm_pkt_payload(&block.pkts[i]))
		META(time_ns, uint64_t, onvm_pkt_time_ns(columns->ctx, &block.pkts[i]))
#undef META
	case ONVM_META_flow_key:
		for (uint32_t i = block.first; i < block.end; i++)
			onvm_tuple_read(&block.pkts[i], &block.layouts[i],
					&((struct onvm_tuple *)(void *)values)[i]);
		break;
	default:
		break;
	}
}

void
onvm_columns_scatter(struct onvm_columns *columns, uint32_t id, uint32_t index)
{
	const struct block block = block_of(columns, index);
	const bool is_alike = columns->alike[index];
	const uint8_t *values = columns->value[id];
	const uint8_t *originals = columns->original[id];

	switch (id) {
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable)                          \
	case ONVM_FIELD_##header##_##name:                                                        \
		if (writable)                                                                     \
			scatter(&block, is_alike,                                                 \
				&(const struct onvm_field){ONVM_H_##header, offset, bytes, shift, \
							   bits, sums, writable},                 \
				values, originals, ENTRY_BYTES(bits));                            \
		break;
		ONVM_FIELDS(ONVM_X)
#undef ONVM_X
	case ONVM_META_verdict:
		for (uint32_t i = block.first; i < block.end; i++)
			columns->pkts[i].verdict = values[i];
		break;
	case ONVM_META_destination:
		for (uint32_t i = block.first; i < block.end; i++)
			columns->pkts[i].destination = (uint16_t)entry(values, i, 2);
		break;
	default:
		break;
	}
}
