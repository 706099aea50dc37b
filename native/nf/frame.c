/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <onvm/content.h>

int
onvm_parse_frame(const uint8_t *data, uint32_t length, struct onvm_headers *headers)
{
	return onvm_parse(data, length, headers);
}

int
onvm_verify_frame(const uint8_t *data, const struct onvm_headers *headers)
{
	return onvm_verify_l3(data, headers) << 4 | onvm_verify_l4(data, headers);
}

uint32_t
onvm_pkt_payload(const struct onvm_pkt *pkt)
{
	struct onvm_headers headers;
	struct onvm_payload payload;

	onvm_parse(pkt->data, pkt->length, &headers);
	payload = onvm_payload_of(pkt->data, pkt->length, &headers);
	return (uint32_t)payload.offset << 16 | payload.length;
}

uint64_t
onvm_pkt_time(const struct onvm_ctx *ctx, const struct onvm_pkt *pkt)
{
	return onvm_pkt_time_ns(ctx, pkt);
}

void
onvm_pkt_make_checksums(struct onvm_pkt *pkt)
{
	struct onvm_headers headers;

	onvm_parse(pkt->data, pkt->length, &headers);
	onvm_checksums_make(pkt->data, &headers, (pkt->flags & ONVM_F_PARTIAL) == 0);
}

bool
onvm_pkt_append_bytes(struct onvm_pkt *pkt, const uint8_t *bytes, uint32_t length)
{
	uint8_t *end = length > UINT16_MAX ? NULL : onvm_pkt_append(pkt, (uint16_t)length);

	if (end == NULL)
		return false;
	memcpy(end, bytes, length);
	return true;
}
