/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CHECKSUM_H_
#define _ONVM_CHECKSUM_H_

/**
 * @file
 * Internet checksums: whole (RFC 1071) and incremental (RFC 1624, equation 3).
 *
 * Sums are kept as they lie in memory (network order read as a native word): the ones'
 * complement sum is the same in either order (RFC 1071 section 2(B)).
 */

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* One access each: of bytes stored one by one, a load of the whole waits until they are done. */

static inline uint16_t
onvm_load_be16(const uint8_t *p)
{
	uint16_t value;

	memcpy(&value, p, sizeof(value));
	return be16toh(value);
}

static inline uint32_t
onvm_load_be32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return be32toh(value);
}

static inline void
onvm_store_be16(uint8_t *p, uint16_t value)
{
	value = htobe16(value);
	memcpy(p, &value, sizeof(value));
}

static inline void
onvm_store_be32(uint8_t *p, uint32_t value)
{
	value = htobe32(value);
	memcpy(p, &value, sizeof(value));
}

/** Fold a sum of 16-bit words into 16 bits. */
static inline uint16_t
onvm_checksum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/** Add @p length bytes to a running, unfolded sum of words as they lie in memory. */
static inline uint64_t
onvm_checksum_add(uint64_t sum, const uint8_t *data, uint32_t length)
{
	uint32_t word;
	uint16_t half;

	for (; length >= 4; data += 4, length -= 4) {
		memcpy(&word, data, 4);
		sum += word;
	}
	if (length >= 2) {
		memcpy(&half, data, 2);
		sum += half;
		data += 2;
		length -= 2;
	}
	if (length == 1) {
		half = 0;
		memcpy(&half, data, 1);
		sum += half;
	}
	return sum;
}

/**
 * New checksum after @p old_bytes became @p new_bytes (RFC 1624, equation 3).
 *
 * @param checksum  as it lies in memory (memcpy'd, not swapped)
 * @param length    bytes that changed: even, and beginning at an even offset of the summed data
 */
static inline uint16_t
onvm_checksum_update(uint16_t checksum, const void *old_bytes, const void *new_bytes,
		     uint32_t length)
{
	uint64_t sum = (uint16_t)~checksum;
	uint16_t word;

	for (uint32_t i = 0; i < length; i += 2) {
		memcpy(&word, (const uint8_t *)old_bytes + i, 2);
		sum += (uint16_t)~word;
		memcpy(&word, (const uint8_t *)new_bytes + i, 2);
		sum += word;
	}
	return (uint16_t)~onvm_checksum_fold(sum);
}

/** Apply onvm_checksum_update() to the checksum field at @p field. */
static inline void
onvm_checksum_replace(uint8_t *field, const void *old_bytes, const void *new_bytes, uint32_t length)
{
	uint16_t checksum;

	memcpy(&checksum, field, 2);
	checksum = onvm_checksum_update(checksum, old_bytes, new_bytes, length);
	memcpy(field, &checksum, 2);
}

#endif /* _ONVM_CHECKSUM_H_ */
