/* SPDX-License-Identifier: Apache-2.0 */
#include "flows/classify.h"

#include <stddef.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include "packet_memory.h"

#define PREFETCH_AHEAD 4

/** Guess where flows are; @return whether there is one of which the cache has no idea. */
static bool
guess(const struct onvm_flow_table *flows, struct onvm_burst *burst, uint32_t nb)
{
	bool is_any_unknown = false;

	for (uint32_t i = 0; i < nb; i++) {
		uint32_t position = ONVM_FLOW_NONE;

		if (likely(burst->kinds[i] != ONVM_FLOW_KIND_NONE)) {
			position = onvm_flow_cache_find(&flows->cache, burst->hashes[i]);
			is_any_unknown |= position == ONVM_FLOW_NONE;
		}
		burst->positions[i] = position;
		if (unlikely(position == ONVM_FLOW_NONE))
			continue;
		rte_prefetch0(&flows->flows[position]);
		rte_prefetch0(position < flows->nb4 ? flows->keys4[position] :
						      flows->keys6[position - flows->nb4]);
	}
	return is_any_unknown;
}

/** Look up the packets of one kind in bulk. */
static void
look_up(const struct onvm_flow_table *flows, struct onvm_burst *burst, uint32_t nb,
	enum onvm_flow_kind kind)
{
	const struct rte_hash *hash = kind == ONVM_FLOW_KIND_IPV4 ? flows->hash4 : flows->hash6;
	const uint32_t base = kind == ONVM_FLOW_KIND_IPV4 ? 0 : flows->nb4;
	const void *keys[ONVM_BURST_SIZE];
	hash_sig_t hashes[ONVM_BURST_SIZE];
	int32_t positions[ONVM_BURST_SIZE];
	uint8_t packets[ONVM_BURST_SIZE];
	uint32_t nb_keys = 0;

	for (uint32_t i = 0; i < nb; i++) {
		if (burst->kinds[i] != kind || burst->positions[i] != ONVM_FLOW_NONE)
			continue;
		keys[nb_keys] = &burst->keys[i];
		hashes[nb_keys] = burst->hashes[i];
		packets[nb_keys++] = (uint8_t)i;
	}
	if (nb_keys == 0)
		return;
	rte_hash_lookup_with_hash_bulk(hash, keys, hashes, nb_keys, positions);
	for (uint32_t i = 0; i < nb_keys; i++) {
		if (positions[i] < 0)
			continue;
		burst->positions[packets[i]] = base + (uint32_t)positions[i];
		rte_prefetch0(&flows->flows[base + (uint32_t)positions[i]]);
		onvm_flow_cache_put(&flows->cache, hashes[i], base + (uint32_t)positions[i]);
	}
}

static_assert(offsetof(struct onvm_flow_key4, dst_port) == 10 &&
		      offsetof(struct onvm_flow_key4, vlan) == 12 &&
		      offsetof(struct onvm_flow_key4, port) == 14 &&
		      offsetof(struct onvm_flow_key4, protocol) == 15 &&
		      RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	      "words_of_common() makes a key of words");

/**
 * Words of the key of the common packet: untagged, IPv4 without options, TCP or UDP, no fragment.
 * Gives what onvm_parse() and onvm_flow_key_make() give, in a quarter of the instructions; words,
 * because one that is loaded right after its parts were stored has to wait for them.
 */
static inline bool
words_of_common(const uint8_t *data, uint32_t length, uint8_t port, uint64_t words[2],
		uint8_t *signs)
{
	uint16_t ethertype, fragment;
	uint32_t total, ports;

	if (unlikely(length < 14 + 20 + 8))
		return false;
	memcpy(&ethertype, data + 12, sizeof(ethertype));
	memcpy(&fragment, data + 20, sizeof(fragment));
	total = onvm_load_be16(data + 16);
	if (unlikely(ethertype != RTE_BE16(ONVM_ETHERTYPE_IPV4) || data[14] != 0x45 ||
		     (fragment & RTE_BE16(0x3fff)) != 0 || total > length - 14))
		return false;
	*signs = 0;
	if (data[23] == ONVM_PROTO_TCP) {
		if (unlikely(total < 20 + 20))
			return false;
		*signs = data[14 + 20 + 13] & ONVM_SIGNS_TCP;
	} else if (unlikely(total < 20 + 8)) {
		return false;
	}
	if (unlikely(data[23] != ONVM_PROTO_TCP && data[23] != ONVM_PROTO_UDP))
		return false;
	memcpy(&words[0], data + 26, sizeof(words[0]));
	memcpy(&ports, data + 34, sizeof(ports));
	ports = rte_be_to_cpu_32(ports); /* the source's above the destination's */
	words[1] = ports >> 16 | (uint64_t)(ports & 0xffff) << 16 | (uint64_t)port << 48 |
		   (uint64_t)data[23] << 56;
	return true;
}

/** Key, hash and kind of packet @p i. */
static inline void
make_key(const struct onvm_flow_table *flows, uint8_t port, const struct rte_mbuf *mbuf,
	 struct onvm_burst *burst, uint32_t i)
{
	const uint8_t *data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	enum onvm_flow_kind kind = ONVM_FLOW_KIND_IPV4;
	struct onvm_headers headers;
	uint64_t words[2];
	uint8_t signs;
	uint32_t hash;

	if (likely(words_of_common(data, mbuf->data_len, port, words, &signs))) {
		memcpy(&burst->keys[i].v4, words, sizeof(words));
		hash = onvm_flow_words_hash4(words[0], words[1]);
	} else {
		onvm_parse(data, mbuf->data_len, &headers);
		kind = onvm_flow_key_make(data, &headers, port, &burst->keys[i]);
		signs = onvm_flow_signs(&headers);
		hash = kind == ONVM_FLOW_KIND_NONE ? 0 : onvm_flow_key_hash(kind, &burst->keys[i]);
	}
	burst->kinds[i] = (uint8_t)kind;
	burst->hashes[i] = hash;
	burst->signs[i] = signs;
	onvm_flow_cache_prefetch(&flows->cache, hash);
}

void
onvm_classify(const struct onvm_flow_table *flows, uint8_t port, struct rte_mbuf **mbufs,
	      uint32_t nb, struct onvm_burst *burst)
{
	for (uint32_t i = 0; i < nb && i < PREFETCH_AHEAD; i++)
		rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], void *));
	for (uint32_t i = 0; i < nb; i++) {
		if (i + PREFETCH_AHEAD < nb)
			rte_prefetch0(rte_pktmbuf_mtod(mbufs[i + PREFETCH_AHEAD], void *));
		make_key(flows, port, mbufs[i], burst, i);
	}
	if (guess(flows, burst, nb)) {
		look_up(flows, burst, nb, ONVM_FLOW_KIND_IPV4);
		look_up(flows, burst, nb, ONVM_FLOW_KIND_IPV6);
	}
}

uint32_t
onvm_flow_hash_of(const struct rte_mbuf *mbuf)
{
	const uint8_t *data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	struct onvm_headers headers;
	union onvm_flow_key key;
	enum onvm_flow_kind kind;

	onvm_parse(data, mbuf->data_len, &headers);
	kind = onvm_flow_key_make(data, &headers, 0, &key);
	return kind == ONVM_FLOW_KIND_NONE ? 0 : onvm_flow_key_hash(kind, &key);
}
