/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ADDRESS_H_
#define _ONVM_ADDRESS_H_

/**
 * @file
 * The space of an IP address of either version, in network order. An IPv4 address is its first 4
 * bytes; the others are 0 where such a space is compared as a whole.
 */

#include <stdint.h>

#define ONVM_ADDRESS_BYTES 16

/** Bytes of an address of @p ip_version (4 or 6). */
static inline uint32_t
onvm_address_bytes(uint32_t ip_version)
{
	return ip_version == 4 ? 4 : ONVM_ADDRESS_BYTES;
}

#endif /* _ONVM_ADDRESS_H_ */
