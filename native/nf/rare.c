/* SPDX-License-Identifier: Apache-2.0 */
#include "rare.h"

#include <string.h>

#include <onvm/rare.h>

static const struct onvm_field fields[ONVM_RARE_COUNT] = {
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable) \
	{ONVM_H_##header, offset, bytes, shift, bits, sums, writable},
	ONVM_RARE_FIELDS(ONVM_X)
#undef ONVM_X
};

static const char *const field_names[ONVM_RARE_COUNT] = {
#define ONVM_X(header, name, ...) #header "." #name,
	ONVM_RARE_FIELDS(ONVM_X)
#undef ONVM_X
};

const struct onvm_field *
onvm_rare_field(uint32_t id)
{
	return id < ONVM_RARE_COUNT ? &fields[id] : NULL;
}

const char *
onvm_rare_field_name(uint32_t id)
{
	return id < ONVM_RARE_COUNT ? field_names[id] : "";
}

static struct onvm_layout
layout_from(uint64_t word)
{
	struct onvm_layout layout;

	memcpy(&layout, &word, sizeof(layout));
	return layout;
}

bool
onvm_pkt_has_rare(const struct onvm_pkt *pkt, uint64_t layout_word, uint32_t header)
{
	const struct onvm_layout layout = layout_from(layout_word);

	return onvm_rare_header(pkt, &layout, header) != NULL;
}

uint64_t
onvm_pkt_rare_load(const struct onvm_pkt *pkt, uint64_t layout_word, uint32_t id)
{
	const struct onvm_layout layout = layout_from(layout_word);

	return onvm_rare_load(pkt, &layout, &fields[id]);
}

void
onvm_pkt_rare_store(const struct onvm_pkt *pkt, uint64_t layout_word, uint32_t id, uint64_t value)
{
	const struct onvm_layout layout = layout_from(layout_word);

	onvm_rare_store(pkt, &layout, &fields[id], value);
}
