/* SPDX-License-Identifier: Apache-2.0 */
#include "nptv6.h"

#include <string.h>

#include <onvm/checksum.h>

#define SUBNET_BITS 48u /* up to here the subnet's word makes up for the difference */
#define SUBNET_AT 6u
#define HOST_AT 8u
#define ALL_ONES 0xffffu

static bool
holds(const uint8_t *prefix, uint32_t bits, const uint8_t *address)
{
	const uint32_t bytes = bits / 8, rest = bits % 8;

	return memcmp(prefix, address, bytes) == 0 &&
	       (rest == 0 || (prefix[bytes] ^ address[bytes]) >> (8 - rest) == 0);
}

static const struct nptv6_pair *
pair_find(const struct nptv6_pair *pairs, uint32_t nb, const uint8_t *address, bool is_inside)
{
	for (uint32_t i = 0; i < nb; i++)
		if (holds(is_inside ? pairs[i].inside : pairs[i].outside, pairs[i].bits, address))
			return &pairs[i];
	return NULL;
}

bool
nptv6_holds(const struct nptv6_pair *pairs, uint32_t nb, const uint8_t *address, bool is_inside)
{
	return pair_find(pairs, nb, address, is_inside) != NULL;
}

/* RFC 6296 3.4, 3.5: which word; below 0: none. */
static int32_t
word_find(const uint8_t *address, uint32_t bits)
{
	if (bits <= SUBNET_BITS)
		return onvm_load_be16(address + SUBNET_AT) == ALL_ONES ? -1 : (int32_t)SUBNET_AT;
	for (uint32_t at = bits > 64 ? (bits + 15) / 16 * 2 : HOST_AT; at < 16; at += 2)
		if (onvm_load_be16(address + at) != ALL_ONES)
			return (int32_t)at;
	return -1;
}

static uint16_t
sum_of(const uint8_t *prefix)
{
	return onvm_checksum_fold(onvm_checksum_add(0, prefix, 16));
}

enum nptv6_result
nptv6_translate(const struct nptv6_pair *pairs, uint32_t nb, uint8_t *address, bool is_outward)
{
	const struct nptv6_pair *const pair = pair_find(pairs, nb, address, is_outward);
	const uint8_t *from, *to;
	uint32_t bytes, rest;
	uint16_t word;
	int32_t at;

	if (pair == NULL)
		return NPTV6_OTHER;
	from = is_outward ? pair->inside : pair->outside;
	to = is_outward ? pair->outside : pair->inside;
	at = word_find(address, pair->bits);
	if (at < 0)
		return NPTV6_NOT_TRANSLATED;
	memcpy(&word, address + at, sizeof(word));
	word = onvm_checksum_fold((uint64_t)word + sum_of(from) + (uint16_t)~sum_of(to));
	if (word == ALL_ONES)
		word = 0;
	memcpy(address + at, &word, sizeof(word));
	bytes = pair->bits / 8;
	rest = pair->bits % 8;
	memcpy(address, to, bytes);
	if (rest != 0) {
		const uint8_t mask = (uint8_t)(0xff << (8 - rest));

		address[bytes] = (uint8_t)((address[bytes] & ~mask) | (to[bytes] & mask));
	}
	return NPTV6_DONE;
}
