/* SPDX-License-Identifier: Apache-2.0 */
#include "columns.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <onvm/rare.h>

#include "column_access.h"
#include "frame.h"
#include "held.h"
#include "rare.h"

/* Measured at bursts of 1024: 4 hides the miss as well as 8 does; less than 3 does not. */
#define PREFETCH_DISTANCE 4

static const struct onvm_field fields[ONVM_FIELD_COUNT] = {
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable) \
	{ONVM_H_##header, offset, bytes, shift, bits, sums, writable},
	ONVM_FIELDS(ONVM_X)
#undef ONVM_X
};

static const char *const field_names[ONVM_FIELD_COUNT] = {
#define ONVM_X(header, name, ...) #header "." #name,
	ONVM_FIELDS(ONVM_X)
#undef ONVM_X
};

const struct onvm_field *
onvm_field_table(void)
{
	return fields;
}

const char *
onvm_field_name(uint32_t id)
{
	return id < ONVM_FIELD_COUNT ? field_names[id] : "";
}

uint64_t
onvm_layout_word(const struct onvm_pkt *pkt)
{
	const struct onvm_layout layout = onvm_layout_of(pkt);
	uint64_t word;

	memcpy(&word, &layout, 8);
	return word;
}

void
onvm_flow_key(const struct onvm_pkt *pkt, uint64_t layout_word, struct onvm_tuple *key)
{
	struct onvm_layout layout;

	memcpy(&layout, &layout_word, sizeof(layout));
	onvm_tuple_read(pkt, &layout, key);
}

uint32_t
onvm_columns_entry_bytes(uint32_t id)
{
	uint32_t bits;

	if (id >= ONVM_COLUMN_COUNT) {
		bits = onvm_rare_field(id - ONVM_COLUMN_COUNT)->bits;
		return bits <= 8 ? 1 : bits <= 16 ? 2 : bits <= 32 ? 4 : 6;
	}
	switch (id) {
	case ONVM_META_length:
	case ONVM_META_port:
	case ONVM_META_destination:
	case ONVM_META_l3_offset:
	case ONVM_META_l4_offset:
	case ONVM_META_payload_length:
		return 2;
	case ONVM_META_flow_hash:
		return 4;
	case ONVM_META_time_ns:
		return 8;
	case ONVM_META_flow_key:
		return sizeof(struct onvm_tuple);
	case ONVM_META_protocol:
	case ONVM_META_vlan_count:
	case ONVM_META_verdict:
		return 1;
	default:
		break;
	}
	bits = fields[id].bits;
	return bits <= 8 ? 1 : bits <= 16 ? 2 : bits <= 32 ? 4 : bits / 8;
}

struct onvm_columns *
onvm_columns_create(onvm_columns_handler handler, void *handle)
{
	struct onvm_columns *columns = calloc(1, sizeof(*columns));

	if (columns == NULL)
		return NULL;
	columns->handler = handler;
	columns->handle = handle;
	return columns;
}

void
onvm_columns_free(struct onvm_columns *columns)
{
	if (columns == NULL)
		return;
	for (uint32_t id = 0; id < ONVM_COLUMN_COUNT; id++)
		free(columns->value[id]);
	for (uint32_t header = 0; header < ONVM_MASK_COUNT; header++)
		free(columns->mask[header]);
	for (uint32_t id = 0; id < ONVM_RARE_COUNT; id++)
		free(columns->rare_value[id]);
	free(columns);
}

/** Keep a copy of column @p id, to see later which entries the handler changed. */
static void
keep_originals(struct onvm_columns *columns, uint32_t id)
{
	memcpy(columns->original[id], columns->value[id],
	       (size_t)columns->nb_pkts * onvm_columns_entry_bytes(id));
}

/** Read the layouts of @p block and see whether they are all the same. */
static void
read_layouts(struct onvm_columns *columns, uint32_t block)
{
	const struct onvm_pkt *pkts = columns->pkts;
	const uint32_t first = block * ONVM_COLUMN_BLOCK;
	const uint32_t end = onvm_columns_block_end(columns, block);
	uint64_t word, first_word = 0, differs = 0;
	struct onvm_layout layout;

	for (uint32_t i = first; i < end; i++) {
		if (i + PREFETCH_DISTANCE < columns->nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_DISTANCE].data, 1);
		layout = onvm_layout_of(&pkts[i]);
		columns->layout[i] = layout;
		columns->data[i] = pkts[i].data;
		memcpy(&word, &layout, sizeof(word));
		if (i == first)
			first_word = word;
		differs |= word ^ first_word;
	}
	columns->alike[block] = differs == 0;
}

/** Read all layouts, and with them the columns that this burst's handler will ask for, too. */
static void
read_packets(struct onvm_columns *columns)
{
	const uint64_t usual = columns->usual & ~columns->gathered;

	for (uint32_t block = 0; block * ONVM_COLUMN_BLOCK < columns->nb_pkts; block++) {
		read_layouts(columns, block);
		for (uint64_t left = usual; left != 0; left &= left - 1)
			onvm_columns_gather(columns, (uint32_t)__builtin_ctzll(left), block);
	}
	for (uint64_t left = usual; left != 0; left &= left - 1)
		keep_originals(columns, (uint32_t)__builtin_ctzll(left));
	columns->gathered |= usual;
	columns->has_layouts = true;
}

void
onvm_columns_begin(struct onvm_columns *columns, struct onvm_ctx *ctx, struct onvm_pkt *pkts,
		   uint32_t nb_pkts)
{
	columns->ctx = ctx;
	columns->pkts = pkts;
	columns->nb_pkts = nb_pkts;
	columns->gathered = 0;
	columns->masks = 0;
	columns->rare = 0;
	columns->has_layouts = false;
	if (nb_pkts != 0) {
		columns->usual = columns->used;
		columns->used = 0;
	}
}

uint32_t
onvm_columns_length(const struct onvm_columns *columns)
{
	return columns->nb_pkts;
}

struct onvm_ctx *
onvm_columns_ctx(const struct onvm_columns *columns)
{
	return columns->ctx;
}

/** Where a rare header is; after a look at all layouts. */
static uint8_t *
rare_at(const struct onvm_columns *columns, uint32_t i, uint32_t header)
{
	return onvm_rare_header(&columns->pkts[i], &columns->layout[i], header);
}

/** A column of a header that few packets have: one by one, and never read ahead. */
static void *
get_rare(struct onvm_columns *columns, uint32_t id)
{
	const struct onvm_field *field = onvm_rare_field(id);
	const uint32_t bytes = onvm_columns_entry_bytes(ONVM_COLUMN_COUNT + id);
	uint8_t *values = columns->rare_value[id];

	if (values == NULL) {
		values = columns->rare_value[id] = calloc(2 * ONVM_BURST_MAX, bytes);
		if (values == NULL)
			return NULL;
	}
	if (columns->rare >> id & 1)
		return values;
	if (!columns->has_layouts)
		read_packets(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++) {
		const uint8_t *at = rare_at(columns, i, field->header);
		uint64_t value;

		memset(values + (size_t)i * bytes, 0, bytes);
		if (at == NULL)
			continue;
		if (bytes == 6) {
			memcpy(values + (size_t)i * 6, at + field->offset, 6);
			continue;
		}
		/* The first bytes of a number are its lowest ones: this is a little-endian machine. */
		value = onvm_rare_load(&columns->pkts[i], &columns->layout[i], field);
		memcpy(values + (size_t)i * bytes, &value, bytes);
	}
	memcpy(values + (size_t)ONVM_BURST_MAX * bytes, values, (size_t)columns->nb_pkts * bytes);
	columns->rare |= UINT64_C(1) << id;
	return values;
}

static void
scatter_rare(struct onvm_columns *columns, uint32_t id)
{
	const struct onvm_field *field = onvm_rare_field(id);
	const uint32_t bytes = onvm_columns_entry_bytes(ONVM_COLUMN_COUNT + id);
	const uint8_t *values = columns->rare_value[id];
	const uint8_t *originals = values + (size_t)ONVM_BURST_MAX * bytes;

	for (uint32_t i = 0; field->is_writable && i < columns->nb_pkts; i++) {
		const size_t at = (size_t)i * bytes;
		uint64_t value = 0;
		uint8_t *header;

		if (memcmp(values + at, originals + at, bytes) == 0)
			continue;
		header = rare_at(columns, i, field->header);
		if (bytes == 6 && header != NULL) {
			memcpy(header + field->offset, values + at, 6);
		} else if (bytes != 6) {
			memcpy(&value, values + at, bytes);
			onvm_rare_store(&columns->pkts[i], &columns->layout[i], field, value);
		}
	}
}

void *
onvm_columns_get(struct onvm_columns *columns, uint32_t id)
{
	uint32_t bytes;

	if (id >= ONVM_COLUMN_COUNT)
		return get_rare(columns, id - ONVM_COLUMN_COUNT);
	bytes = onvm_columns_entry_bytes(id);
	if (columns->value[id] == NULL) {
		columns->value[id] = calloc(2 * ONVM_BURST_MAX, bytes);
		if (columns->value[id] == NULL)
			return NULL;
		columns->original[id] = columns->value[id] + (size_t)ONVM_BURST_MAX * bytes;
	}
	if (!columns->has_layouts)
		read_packets(columns);
	if (!(columns->gathered >> id & 1)) {
		for (uint32_t block = 0; block * ONVM_COLUMN_BLOCK < columns->nb_pkts; block++)
			onvm_columns_gather(columns, id, block);
		keep_originals(columns, id);
		columns->gathered |= UINT64_C(1) << id;
	}
	/* Decisions may be read again and again in one burst, so they are not read ahead. */
	if (id != ONVM_META_verdict && id != ONVM_META_destination)
		columns->used |= UINT64_C(1) << id;
	return columns->value[id];
}

uint8_t *
onvm_columns_mask(struct onvm_columns *columns, uint32_t header)
{
	uint8_t *mask = columns->mask[header];

	if (mask == NULL) {
		mask = columns->mask[header] = calloc(ONVM_BURST_MAX, 1);
		if (mask == NULL)
			return NULL;
	}
	if (!(columns->masks >> header & 1)) {
		if (!columns->has_layouts)
			read_packets(columns);
		for (uint32_t i = 0; i < columns->nb_pkts; i++)
			mask[i] = header < ONVM_H_ARP ? columns->layout[i].flags >> header & 1 :
							rare_at(columns, i, header) != NULL;
		columns->masks |= 1u << header;
	}
	return mask;
}

/* A checksum that the author set himself goes in last: it is not to be fixed any more. */
static bool
is_checksum(uint32_t id)
{
	return id == ONVM_FIELD_IPV4_checksum || id == ONVM_FIELD_TCP_checksum ||
	       id == ONVM_FIELD_UDP_checksum || id == ONVM_FIELD_ICMP_checksum;
}

static void
scatter(struct onvm_columns *columns, uint32_t id)
{
	for (uint32_t block = 0; block * ONVM_COLUMN_BLOCK < columns->nb_pkts; block++)
		onvm_columns_scatter(columns, id, block);
}

void
onvm_columns_flush(struct onvm_columns *columns)
{
	for (uint64_t left = columns->rare; left != 0; left &= left - 1)
		scatter_rare(columns, (uint32_t)__builtin_ctzll(left));
	columns->rare = 0;
	for (int last = 0; last < 2; last++) {
		for (uint64_t left = columns->gathered; left != 0; left &= left - 1) {
			const uint32_t id = (uint32_t)__builtin_ctzll(left);
			const size_t size = (size_t)columns->nb_pkts * onvm_columns_entry_bytes(id);

			if (is_checksum(id) == (last != 0) &&
			    memcmp(columns->value[id], columns->original[id], size) != 0)
				scatter(columns, id);
		}
	}
	columns->gathered = 0;
}

/* Headers have moved: nothing that was read before holds. */
static void
forget(struct onvm_columns *columns)
{
	columns->gathered = 0;
	columns->masks = 0;
	columns->has_layouts = false;
}

struct onvm_pkt *
onvm_columns_packet(struct onvm_columns *columns, uint32_t row)
{
	if (row >= columns->nb_pkts)
		return NULL;
	onvm_columns_flush(columns);
	forget(columns);
	return &columns->pkts[row];
}

/* Values written into the columns of decisions so far came before the next one. */
static void
flush_decisions(struct onvm_columns *columns)
{
	const uint64_t decided = UINT64_C(1) << ONVM_META_verdict |
				 UINT64_C(1) << ONVM_META_destination;
	const uint64_t others = columns->gathered & ~decided, rare = columns->rare;

	if ((columns->gathered & decided) == 0)
		return;
	columns->gathered &= decided;
	columns->rare = 0;
	onvm_columns_flush(columns);
	columns->gathered = others;
	columns->rare = rare;
}

void
onvm_columns_hold(struct onvm_columns *columns, const uint8_t *mask, uint32_t *tokens)
{
	flush_decisions(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++)
		tokens[i] = mask == NULL || mask[i] != 0 ?
				    onvm_held_add(columns->ctx->held_packets, &columns->pkts[i]) :
				    0;
}

void
onvm_columns_decide(struct onvm_columns *columns, const uint8_t *mask, uint32_t verdict,
		    uint32_t destination)
{
	flush_decisions(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++) {
		struct onvm_pkt *pkt = &columns->pkts[i];
		uint64_t eight;

		if (mask != NULL && i % 8 == 0 && i + 8 <= columns->nb_pkts) {
			/* Most masks choose few: eight that are not chosen cost one look. */
			memcpy(&eight, mask + i, sizeof(eight));
			if (eight == 0) {
				i += 7;
				continue;
			}
		}
		if (mask == NULL || mask[i] != 0) {
			pkt->verdict = (uint8_t)verdict;
			pkt->destination = (uint16_t)destination;
		}
	}
}

void
onvm_columns_push(struct onvm_columns *columns, const uint8_t *mask, uint32_t length,
		  const uint8_t *bytes, uint32_t stride, uint8_t *done)
{
	onvm_columns_flush(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++) {
		uint8_t *data = NULL;

		if ((mask == NULL || mask[i] != 0) && length <= UINT16_MAX)
			data = onvm_pkt_push(&columns->pkts[i], (uint16_t)length);
		done[i] = data != NULL;
		if (data == NULL)
			continue;
		if (bytes != NULL)
			memcpy(data, bytes + (size_t)i * stride, length);
		else
			memset(data, 0, length);
	}
	forget(columns);
}

void
onvm_columns_pull(struct onvm_columns *columns, const uint8_t *mask, uint32_t length, uint8_t *done)
{
	onvm_columns_flush(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++)
		done[i] = (mask == NULL || mask[i] != 0) && length <= UINT16_MAX &&
			  onvm_pkt_pull(&columns->pkts[i], (uint16_t)length) != NULL;
	forget(columns);
}

void
onvm_columns_append(struct onvm_columns *columns, const uint8_t *mask, uint32_t length,
		    const uint8_t *bytes, uint32_t stride, uint8_t *done)
{
	onvm_columns_flush(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++) {
		uint8_t *end = NULL;

		if ((mask == NULL || mask[i] != 0) && length <= UINT16_MAX)
			end = onvm_pkt_append(&columns->pkts[i], (uint16_t)length);
		done[i] = end != NULL;
		if (end != NULL)
			memcpy(end, bytes + (size_t)i * stride, length);
	}
	forget(columns);
}

void
onvm_columns_trim(struct onvm_columns *columns, const uint8_t *mask, uint32_t length, uint8_t *done)
{
	onvm_columns_flush(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++)
		done[i] = (mask == NULL || mask[i] != 0) && length <= UINT16_MAX &&
			  onvm_pkt_trim(&columns->pkts[i], (uint16_t)length);
	forget(columns);
}

void
onvm_columns_make_checksums(struct onvm_columns *columns, const uint8_t *mask)
{
	onvm_columns_flush(columns);
	for (uint32_t i = 0; i < columns->nb_pkts; i++)
		if (mask == NULL || mask[i] != 0)
			onvm_pkt_make_checksums(&columns->pkts[i]);
	forget(columns);
}

void
onvm_columns_payload(struct onvm_columns *columns, uint32_t offset, uint32_t length, uint8_t *bytes)
{
	for (uint32_t i = 0; i < columns->nb_pkts; i++, bytes += length) {
		const struct onvm_pkt *pkt = &columns->pkts[i];
		const uint32_t payload = onvm_pkt_payload(pkt);
		const uint32_t there = payload & 0xffff;
		const uint32_t rest = offset < there ? there - offset : 0;
		const uint32_t nb = rest < length ? rest : length;

		memcpy(bytes, pkt->data + (payload >> 16) + (nb != 0 ? offset : 0), nb);
		memset(bytes + nb, 0, length - nb);
	}
}

int
onvm_originate(struct onvm_ctx *ctx, const uint8_t *bytes, uint32_t length, uint32_t verdict,
	       uint32_t destination)
{
	struct onvm_pkt *pkt;

	if (!ctx->may_originate)
		return -EPERM;
	pkt = ctx->originate != NULL ? ctx->originate(ctx) : NULL;
	if (pkt == NULL)
		return -ENOBUFS;
	if (length > (uint32_t)pkt->length + pkt->tailroom || length == 0) {
		pkt->verdict = ONVM_DROP;
		return -EMSGSIZE;
	}
	memcpy(pkt->data, bytes, length);
	pkt->tailroom = (uint16_t)(pkt->length + pkt->tailroom - length);
	pkt->length = (uint16_t)length;
	pkt->verdict = (uint8_t)verdict;
	pkt->destination = (uint16_t)destination;
	return 0;
}

static void
drop_all(struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	for (uint32_t i = 0; i < nb_pkts; i++)
		onvm_pkt_drop(&pkts[i], 0);
}

void
onvm_columns_kernel(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct onvm_columns *columns = ctx->state;

	for (uint32_t first = 0; first < nb_pkts; first += ONVM_BURST_MAX) {
		const uint32_t nb = nb_pkts - first < ONVM_BURST_MAX ? nb_pkts - first :
								       ONVM_BURST_MAX;

		onvm_columns_begin(columns, ctx, pkts + first, nb);
		if (columns->has_failed || columns->handler(columns->handle) < 0) {
			columns->has_failed = true;
			drop_all(pkts + first, nb);
		} else {
			onvm_columns_flush(columns);
		}
		onvm_columns_begin(columns, ctx, NULL, 0);
	}
}
