/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

void
router_complete_checksum(uint8_t *data, uint32_t length)
{
	struct onvm_headers headers;
	uint8_t rest[4] = {0};
	uint64_t sum;
	uint16_t value;
	uint8_t *field;

	if (onvm_parse(data, length, &headers) != ONVM_L3_OK || headers.l4_status != ONVM_L4_OK ||
	    (headers.protocol != ONVM_PROTO_TCP && headers.protocol != ONVM_PROTO_UDP))
		return;
	field = data + headers.l4_offset + (headers.protocol == ONVM_PROTO_TCP ? 16 : 6);
	memset(field, 0, 2);
	rest[1] = headers.protocol;
	onvm_store_be16(rest + 2, headers.l4_length);
	sum = onvm_checksum_add(0, rest, sizeof(rest));
	sum = onvm_checksum_add(sum, data + headers.l3_offset + (headers.ip_version == 4 ? 12 : 8),
				2 * onvm_address_bytes(headers.ip_version));
	sum = onvm_checksum_add(sum, data + headers.l4_offset, headers.l4_length);
	value = (uint16_t)~onvm_checksum_fold(sum);
	if (value == 0 && headers.protocol == ONVM_PROTO_UDP)
		value = 0xffff;
	memcpy(field, &value, sizeof(value));
}
