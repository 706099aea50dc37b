/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <onvm/verify.h>

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
