/* SPDX-License-Identifier: Apache-2.0 */
#include "fragments/reassembly.h"

#include <stdlib.h>
#include <string.h>

#include <rte_hash.h>
#include <rte_mbuf_dyn.h>
#include <rte_spinlock.h>

#include <onvm/keyed_hash.h>

#include "fragments/cutting.h"

#define NONE UINT32_MAX
#define DATAGRAM_MAX 65535u /* bytes of an IP packet; without those of the header in IPv6 */
#define DONT_FRAGMENT 0x4000
#define CE 3 /* RFC 3168 */

/** What a datagram is known by while it is in pieces. */
struct datagram_key {
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint8_t id[4];
	uint16_t vlans[ONVM_VLANS_MAX];
	uint16_t port;
	uint8_t ip_version;
	uint8_t protocol; /**< 0 with IPv6: only that of the first fragment counts */
};
static_assert(sizeof(struct datagram_key) == 48, "a multiple of 16, without gaps");

/** A fragment. With virtual reassembly its range is kept when it has gone on. */
struct piece {
	struct rte_mbuf *mbuf; /**< NULL: it has gone on */
	uint32_t behind;       /**< the next one of the datagram, or of the free ones */
	uint32_t first, end;   /**< bytes of the datagram */
	uint16_t begin;	       /**< where its payload begins in the frame */
};

struct datagram {
	struct datagram_key key;
	uint64_t began_ns;
	uint32_t before, behind; /**< in the order in which they began */
	uint32_t pieces, last;	 /**< by offset */
	uint32_t nb_pieces, nb_held;
	uint32_t bytes;	  /**< in all pieces */
	uint32_t end;	  /**< of the datagram; 0: its last fragment has not come */
	uint16_t largest; /**< bytes of the largest fragment, from the IP header on */
	uint8_t ecn;	  /**< bit n: a fragment had the codepoint n */
	uint8_t dead;	  /**< what comes is dropped for `reason` */
	uint8_t reason;	  /**< enum onvm_drop */
	bool has_ports;	  /**< virtual: the first fragment has come */
	uint8_t ports[4]; /**< its ports */
};

struct onvm_reassembly {
	const struct onvm_packet_memory *memory;
	rte_spinlock_t lock;
	struct rte_hash *hash; /**< positions are indices of `datagrams` */
	struct datagram *datagrams;
	struct piece *pieces;
	uint32_t nb_datagrams_max;
	uint32_t nb_datagrams;
	uint32_t first, last; /**< datagrams in the order in which they began */
	uint32_t free;	      /**< pieces */
	uint32_t nb_held;     /**< atomic */
};

static uint32_t
hash_key(const void *key, uint32_t length, uint32_t seed)
{
	return keyed_hash(key, length, seed);
}

/** Keep the flag of reassembled packets from being given to anyone else. */
static bool
reserve_flag(void)
{
	const struct rte_mbuf_dynflag flag = {.name = "onvm_reassembled"};
	const uint32_t bit = (uint32_t)__builtin_ctzll(ONVM_OFFLOAD_FRAGMENTED);

	return rte_mbuf_dynflag_register_bitnum(&flag, bit) == (int)bit;
}

struct onvm_reassembly *
onvm_reassembly_create(const struct onvm_packet_memory *memory, uint32_t nb_datagrams,
		       uint32_t nb_pieces)
{
	struct onvm_reassembly *reassembly = calloc(1, sizeof(*reassembly));
	struct rte_hash_parameters parameters = {
		.name = "onvm-datagrams",
		.entries = nb_datagrams,
		.key_len = sizeof(struct datagram_key),
		.hash_func = hash_key,
		.socket_id = (int)rte_socket_id(),
	};

	if (reassembly == NULL || !reserve_flag() ||
	    keyed_hash_draw(&parameters.hash_func_init_val) != 0) {
		free(reassembly);
		return NULL;
	}
	reassembly->memory = memory;
	reassembly->hash = rte_hash_create(&parameters);
	reassembly->pieces = calloc(nb_pieces, sizeof(*reassembly->pieces));
	if (reassembly->hash != NULL)
		reassembly->datagrams = calloc((uint32_t)rte_hash_max_key_id(reassembly->hash) + 1,
					       sizeof(*reassembly->datagrams));
	if (reassembly->datagrams == NULL || reassembly->pieces == NULL) {
		onvm_reassembly_free(reassembly);
		return NULL;
	}
	rte_spinlock_init(&reassembly->lock);
	reassembly->nb_datagrams_max = nb_datagrams;
	reassembly->first = reassembly->last = NONE;
	for (uint32_t i = 0; i < nb_pieces; i++)
		reassembly->pieces[i].behind = i + 1 < nb_pieces ? i + 1 : NONE;
	return reassembly;
}

void
onvm_reassembly_free(struct onvm_reassembly *reassembly)
{
	if (reassembly == NULL)
		return;
	rte_hash_free(reassembly->hash);
	free(reassembly->datagrams);
	free(reassembly->pieces);
	free(reassembly);
}

/* ---- datagrams ---- */

static void
count_held(struct onvm_reassembly *reassembly, struct datagram *datagram, int32_t more)
{
	datagram->nb_held += (uint32_t)more;
	__atomic_store_n(&reassembly->nb_held, reassembly->nb_held + (uint32_t)more,
			 __ATOMIC_RELAXED);
}

/** Give up all pieces; those that are held are lost for @p reason. */
static void
pieces_drop(struct onvm_reassembly *reassembly, struct datagram *datagram, enum onvm_drop reason,
	    const struct onvm_reassembly_out *out)
{
	const uint32_t nb_held = datagram->nb_held;

	for (uint32_t i = datagram->pieces, behind; i != NONE; i = behind) {
		struct piece *const piece = &reassembly->pieces[i];

		behind = piece->behind;
		rte_pktmbuf_free(piece->mbuf);
		piece->mbuf = NULL;
		piece->behind = reassembly->free;
		reassembly->free = i;
	}
	count_held(reassembly, datagram, -(int32_t)nb_held);
	datagram->pieces = datagram->last = NONE;
	datagram->nb_pieces = 0;
	if (nb_held != 0)
		out->lost(out->arg, datagram->key.port, reason, nb_held);
}

static void
datagram_remove(struct onvm_reassembly *reassembly, uint32_t index)
{
	struct datagram *const datagram = &reassembly->datagrams[index];

	if (datagram->before == NONE)
		reassembly->first = datagram->behind;
	else
		reassembly->datagrams[datagram->before].behind = datagram->behind;
	if (datagram->behind == NONE)
		reassembly->last = datagram->before;
	else
		reassembly->datagrams[datagram->behind].before = datagram->before;
	rte_hash_del_key(reassembly->hash, &datagram->key);
	reassembly->nb_datagrams--;
}

static void
datagram_drop(struct onvm_reassembly *reassembly, uint32_t index, enum onvm_drop reason,
	      const struct onvm_reassembly_out *out)
{
	pieces_drop(reassembly, &reassembly->datagrams[index], reason, out);
	datagram_remove(reassembly, index);
}

/** Drop what has come, and remember to drop the rest. */
static void
datagram_kill(struct onvm_reassembly *reassembly, struct datagram *datagram, enum onvm_drop reason,
	      const struct onvm_reassembly_out *out)
{
	pieces_drop(reassembly, datagram, reason, out);
	datagram->dead = true;
	datagram->reason = (uint8_t)reason;
}

static void
key_fill(struct datagram_key *key, const uint8_t *data, const struct onvm_headers *headers,
	 uint16_t port)
{
	const uint8_t *const l3 = data + headers->l3_offset;

	memset(key, 0, sizeof(*key));
	key->port = port;
	key->ip_version = headers->ip_version;
	if (headers->ip_version == 4) {
		memcpy(key->src, l3 + 12, 4);
		memcpy(key->dst, l3 + 16, 4);
		memcpy(key->id, l3 + 4, 2);
		key->protocol = headers->protocol;
	} else {
		memcpy(key->src, l3 + 8, ONVM_ADDRESS_BYTES);
		memcpy(key->dst, l3 + 24, ONVM_ADDRESS_BYTES);
		memcpy(key->id, data + headers->fragment_header + 4, 4);
	}
	for (uint32_t i = 0; i < headers->nb_vlans; i++)
		key->vlans[i] = (headers->vlan_tci[i] & 0xfff) + 1u; /* 0: no tag */
}

/** The datagram of a key, made if need be. @return NONE: there is no memory for it */
static uint32_t
datagram_find(struct onvm_reassembly *reassembly, const struct datagram_key *key, uint64_t now_ns,
	      const struct onvm_reassembly_out *out)
{
	int32_t index = rte_hash_lookup(reassembly->hash, key);
	struct datagram *datagram;

	if (index >= 0)
		return (uint32_t)index;
	if (reassembly->nb_datagrams == reassembly->nb_datagrams_max)
		datagram_drop(reassembly, reassembly->first, ONVM_DROP_FRAGMENTS_FULL, out);
	index = rte_hash_add_key(reassembly->hash, key);
	if (index < 0) /* both of its buckets are full */
		return NONE;
	datagram = &reassembly->datagrams[index];
	*datagram = (struct datagram){
		.key = *key,
		.began_ns = now_ns,
		.before = reassembly->last,
		.behind = NONE,
		.pieces = NONE,
		.last = NONE,
	};
	if (reassembly->last == NONE)
		reassembly->first = (uint32_t)index;
	else
		reassembly->datagrams[reassembly->last].behind = (uint32_t)index;
	reassembly->last = (uint32_t)index;
	reassembly->nb_datagrams++;
	return (uint32_t)index;
}

/* ---- pieces ---- */

/** Where a fragment begins in its datagram, and in its frame. */
struct range {
	uint32_t first, end;
	uint16_t begin;
	bool is_last;
};

/** @return false: no fragment can be so */
static bool
range_read(const uint8_t *data, const struct onvm_headers *headers, struct range *range)
{
	const uint8_t *const l3 = data + headers->l3_offset;
	uint32_t frame_end;

	if (headers->ip_version == 4) {
		range->begin = (uint16_t)(headers->l3_offset + (l3[0] & 15) * 4);
		frame_end = headers->l3_offset + (uint32_t)onvm_load_be16(l3 + 2);
	} else {
		range->begin = (uint16_t)(headers->fragment_header + 8);
		frame_end = headers->l3_offset + 40u + onvm_load_be16(l3 + 4);
	}
	range->first = headers->fragment_offset;
	range->end = range->first + (frame_end - range->begin);
	range->is_last = !headers->more_fragments;
	return range->end != range->first &&
	       (range->is_last || (range->end - range->first) % 8 == 0) &&
	       range->end + (range->begin - headers->l3_offset) <= DATAGRAM_MAX;
}

enum fit {
	FITS,
	IS_HERE, /**< the same range has come before */
	CLASHES, /**< overlaps another, or is beyond the end */
};

/** Whether a fragment fits to those of its datagram; @p before gets the one that precedes it. */
static enum fit
range_fit(const struct onvm_reassembly *reassembly, const struct datagram *datagram,
	  const struct range *range, uint32_t *before)
{
	const uint32_t last = datagram->last;

	if (datagram->end != 0 &&
	    (range->is_last ? range->end != datagram->end : range->end >= datagram->end))
		return CLASHES;
	*before = NONE;
	if (last == NONE)
		return FITS;
	if (range->is_last && datagram->end == 0 && reassembly->pieces[last].end > range->first)
		return CLASHES;
	if (reassembly->pieces[last].end <= range->first) { /* in order: most are */
		*before = last;
		return FITS;
	}
	for (uint32_t i = datagram->pieces; i != NONE; i = reassembly->pieces[i].behind) {
		const struct piece *const piece = &reassembly->pieces[i];

		if (piece->first == range->first && piece->end == range->end)
			return IS_HERE;
		if (range->first < piece->end && piece->first < range->end)
			return CLASHES;
		if (piece->first > range->first)
			break;
		*before = i;
	}
	return FITS;
}

static void
piece_add(struct onvm_reassembly *reassembly, struct datagram *datagram, const struct range *range,
	  uint32_t before, struct rte_mbuf *mbuf)
{
	const uint32_t index = reassembly->free;
	struct piece *const piece = &reassembly->pieces[index];

	reassembly->free = piece->behind;
	piece->mbuf = mbuf;
	piece->first = range->first;
	piece->end = range->end;
	piece->begin = range->begin;
	if (before == NONE) {
		piece->behind = datagram->pieces;
		datagram->pieces = index;
	} else {
		piece->behind = reassembly->pieces[before].behind;
		reassembly->pieces[before].behind = index;
	}
	if (piece->behind == NONE)
		datagram->last = index;
	datagram->nb_pieces++;
	datagram->bytes += range->end - range->first;
	if (range->is_last)
		datagram->end = range->end;
	count_held(reassembly, datagram, 1);
}

/** Whether the first fragment has all that NFs want to know of the datagram. */
static bool
has_whole_header(const struct onvm_headers *headers)
{
	return headers->l4_status == ONVM_L4_OK || headers->l4_status == ONVM_L4_NONE;
}

/** Ports of a first fragment, as onvm_tuple_read() gives them. */
static void
ports_read(uint8_t ports[4], const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *const l4 = data + headers->l4_offset;

	if (headers->has_ports) {
		memcpy(ports, l4, 4);
	} else if ((headers->protocol == ONVM_PROTO_ICMP ||
		    headers->protocol == ONVM_PROTO_ICMPV6) &&
		   onvm_icmp_is_echo(l4, headers->protocol)) {
		memcpy(ports, l4 + 4, 2);
		memcpy(ports + 2, l4 + 4, 2);
	}
}

/** Let fragments whose ports are known go on, in their order; their ranges stay. */
static void
pieces_pass(struct onvm_reassembly *reassembly, struct datagram *datagram,
	    const struct onvm_reassembly_out *out)
{
	const int32_t nb_held = (int32_t)datagram->nb_held;

	for (uint32_t i = datagram->pieces; i != NONE; i = reassembly->pieces[i].behind) {
		struct rte_mbuf *const mbuf = reassembly->pieces[i].mbuf;
		struct onvm_fragment_note note = {.largest = 0};

		if (mbuf == NULL)
			continue;
		memcpy(note.ports, datagram->ports, sizeof(note.ports));
		memcpy(mbuf->buf_addr, &note, sizeof(note));
		mbuf->ol_flags |= ONVM_OFFLOAD_FRAGMENTED;
		mbuf->tso_segsz = 0;
		reassembly->pieces[i].mbuf = NULL;
		out->ready(out->arg, mbuf);
	}
	count_held(reassembly, datagram, -nb_held);
}

/* ---- reassembly ---- */

/** Let the byte that names the fragment header name what follows it. */
static void
skip_fragment_header(uint8_t *ip, uint32_t nb_headers, uint8_t next)
{
	uint8_t *field = ip + 6;
	uint32_t at = 40;

	while (at < nb_headers) {
		const uint32_t bytes = onvm_ipv6_extension_bytes(*field, ip + at);

		field = ip + at;
		at += bytes;
	}
	*field = next;
}

/** Set what the header of an IPv4 datagram says; a wrong checksum stays wrong. */
static void
finish_ipv4(uint8_t *ip, uint32_t length, bool is_congested)
{
	uint8_t before[8];

	memcpy(before, ip, sizeof(before));
	onvm_store_be16(ip + 2, (uint16_t)length);
	onvm_store_be16(ip + 6, onvm_load_be16(ip + 6) & DONT_FRAGMENT);
	if (is_congested)
		ip[1] |= CE;
	onvm_checksum_replace(ip + 10, before, ip, sizeof(before));
}

static void
finish_ipv6(uint8_t *ip, uint32_t nb_headers, uint8_t next, uint32_t length, bool is_congested)
{
	skip_fragment_header(ip, nb_headers, next);
	onvm_store_be16(ip + 4, (uint16_t)(length - 40));
	if (is_congested)
		ip[1] |= CE << 4;
}

/** Copy all pieces into one packet. @return NULL: it is lost for @p reason */
static struct rte_mbuf *
join(const struct onvm_reassembly *reassembly, const struct datagram *datagram,
     struct rte_mempool *pool, enum onvm_drop *reason)
{
	const struct piece *const first = &reassembly->pieces[datagram->pieces];
	const uint8_t *const data = rte_pktmbuf_mtod(first->mbuf, const uint8_t *);
	const bool is_congested = (datagram->ecn & 1 << CE) != 0;
	struct onvm_headers headers;
	uint32_t nb_headers, length;
	struct rte_mbuf *whole;
	uint8_t *frame;

	(void)onvm_parse(data, first->mbuf->data_len, &headers);
	nb_headers = datagram->key.ip_version == 4 ? first->begin : first->begin - 8u;
	length = nb_headers + datagram->end;
	if (length > reassembly->memory->stride - RTE_PKTMBUF_HEADROOM)
		pool = reassembly->memory->large.pool;
	whole = pool == NULL ? NULL : rte_pktmbuf_alloc(pool);
	*reason = ONVM_DROP_RX_NO_BUFFER;
	if (whole == NULL)
		return NULL;
	if (length > rte_pktmbuf_tailroom(whole)) {
		rte_pktmbuf_free(whole);
		*reason = ONVM_DROP_OVERSIZE;
		return NULL;
	}
	frame = rte_pktmbuf_mtod(whole, uint8_t *);
	memcpy(frame, data, nb_headers);
	for (uint32_t i = datagram->pieces; i != NONE; i = reassembly->pieces[i].behind) {
		const struct piece *const piece = &reassembly->pieces[i];

		memcpy(frame + nb_headers + piece->first,
		       rte_pktmbuf_mtod_offset(piece->mbuf, const uint8_t *, piece->begin),
		       piece->end - piece->first);
	}
	if (datagram->key.ip_version == 4)
		finish_ipv4(frame + headers.l3_offset, length - headers.l3_offset, is_congested);
	else
		finish_ipv6(frame + headers.l3_offset, nb_headers - headers.l3_offset,
			    data[headers.fragment_header], length - headers.l3_offset,
			    is_congested);
	whole->data_len = (uint16_t)length;
	whole->pkt_len = length;
	whole->hash = first->mbuf->hash;
	whole->ol_flags |= (first->mbuf->ol_flags & RTE_MBUF_F_RX_RSS_HASH) |
			   ONVM_OFFLOAD_FRAGMENTED;
	whole->tso_segsz = datagram->largest;
	return whole;
}

/** All pieces are here: let the datagram go on in one. */
static void
complete(struct onvm_reassembly *reassembly, uint32_t index, struct rte_mempool *pool,
	 const struct onvm_reassembly_out *out)
{
	struct datagram *const datagram = &reassembly->datagrams[index];
	const uint32_t nb_pieces = datagram->nb_pieces;
	const uint16_t port = datagram->key.port;
	struct rte_mbuf *whole;
	enum onvm_drop reason;

	/* RFC 3168 section 5.3: congested, while another piece says that its ends know nothing of it. */
	if ((datagram->ecn & (1 << CE | 1)) == (1 << CE | 1)) {
		datagram_drop(reassembly, index, ONVM_DROP_FRAGMENT_BAD, out);
		return;
	}
	/* Some have gone on, when NFs wanted the ports alone. */
	reason = ONVM_DROP_FRAGMENT_TIMEOUT;
	whole = datagram->nb_held == datagram->nb_pieces ?
			join(reassembly, datagram, pool, &reason) :
			NULL;
	if (whole == NULL) {
		datagram_drop(reassembly, index, reason, out);
		return;
	}
	count_held(reassembly, datagram, -(int32_t)datagram->nb_held);
	pieces_drop(reassembly, datagram, ONVM_DROP_FRAGMENT_BAD, out); /* none is held any more */
	datagram_remove(reassembly, index);
	out->ready(out->arg, whole);
	out->joined(out->arg, port, nb_pieces - 1);
}

/* ---- calls ---- */

static void
expire(struct onvm_reassembly *reassembly, uint64_t now_ns, const struct onvm_reassembly_out *out)
{
	while (reassembly->first != NONE &&
	       now_ns - reassembly->datagrams[reassembly->first].began_ns >= ONVM_REASSEMBLY_NS)
		datagram_drop(reassembly, reassembly->first, ONVM_DROP_FRAGMENT_TIMEOUT, out);
}

static void
lose(struct rte_mbuf *mbuf, uint16_t port, enum onvm_drop reason,
     const struct onvm_reassembly_out *out)
{
	rte_pktmbuf_free(mbuf);
	out->lost(out->arg, port, reason, 1);
}

static uint32_t
traffic_class(const uint8_t *l3, uint8_t ip_version)
{
	return ip_version == 4 ? l3[1] : (uint32_t)(l3[0] << 4 | l3[1] >> 4);
}

static void
take(struct onvm_reassembly *reassembly, struct rte_mbuf *mbuf, const struct onvm_headers *headers,
     uint16_t port, enum onvm_fragments mode, struct rte_mempool *pool, uint64_t now_ns,
     const struct onvm_reassembly_out *out)
{
	const uint8_t *const data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	const uint8_t *const l3 = data + headers->l3_offset;
	struct datagram *datagram;
	struct datagram_key key;
	uint32_t index, before;
	struct range range;
	uint32_t length;

	if (!range_read(data, headers, &range)) {
		lose(mbuf, port, ONVM_DROP_FRAGMENT_BAD, out);
		return;
	}
	key_fill(&key, data, headers, port);
	index = datagram_find(reassembly, &key, now_ns, out);
	if (index == NONE) {
		lose(mbuf, port, ONVM_DROP_FRAGMENTS_FULL, out);
		return;
	}
	datagram = &reassembly->datagrams[index];
	if (datagram->dead) {
		lose(mbuf, port, (enum onvm_drop)datagram->reason, out);
		return;
	}
	switch (range_fit(reassembly, datagram, &range, &before)) {
	case FITS:
		break;
	case IS_HERE:
		lose(mbuf, port, ONVM_DROP_FRAGMENT_DUPLICATE, out);
		return;
	case CLASHES:
		datagram_kill(reassembly, datagram, ONVM_DROP_FRAGMENT_OVERLAP, out);
		lose(mbuf, port, ONVM_DROP_FRAGMENT_OVERLAP, out);
		return;
	}
	if (datagram->nb_pieces == ONVM_PIECES_MAX ||
	    (mode == ONVM_FRAGMENTS_VIRTUAL && range.first == 0 && !has_whole_header(headers))) {
		datagram_kill(reassembly, datagram, ONVM_DROP_FRAGMENT_TINY, out);
		lose(mbuf, port, ONVM_DROP_FRAGMENT_TINY, out);
		return;
	}
	while (reassembly->free == NONE && reassembly->first != index)
		datagram_drop(reassembly, reassembly->first, ONVM_DROP_FRAGMENTS_FULL, out);
	if (reassembly->free == NONE) {
		datagram_kill(reassembly, datagram, ONVM_DROP_FRAGMENTS_FULL, out);
		lose(mbuf, port, ONVM_DROP_FRAGMENTS_FULL, out);
		return;
	}
	piece_add(reassembly, datagram, &range, before, mbuf);
	if (mode == ONVM_FRAGMENTS_VIRTUAL) {
		if (range.first == 0) {
			datagram->has_ports = true;
			ports_read(datagram->ports, data, headers);
		}
		if (datagram->has_ports)
			pieces_pass(reassembly, datagram, out);
		if (datagram->bytes == datagram->end)
			datagram_drop(reassembly, index, ONVM_DROP_FRAGMENT_TIMEOUT, out);
		return;
	}
	length = range.begin - headers->l3_offset + (range.end - range.first);
	datagram->largest = RTE_MAX(datagram->largest, (uint16_t)length);
	datagram->ecn |= (uint8_t)(1 << (traffic_class(l3, headers->ip_version) & 3));
	if (datagram->bytes == datagram->end)
		complete(reassembly, index, pool, out);
}

void
onvm_reassembly_take(struct onvm_reassembly *reassembly, struct rte_mbuf *mbuf,
		     const struct onvm_headers *headers, uint16_t port, enum onvm_fragments mode,
		     struct rte_mempool *pool, uint64_t now_ns,
		     const struct onvm_reassembly_out *out)
{
	rte_spinlock_lock(&reassembly->lock);
	expire(reassembly, now_ns, out);
	take(reassembly, mbuf, headers, port, mode, pool, now_ns, out);
	rte_spinlock_unlock(&reassembly->lock);
}

void
onvm_reassembly_expire(struct onvm_reassembly *reassembly, uint64_t now_ns,
		       const struct onvm_reassembly_out *out)
{
	rte_spinlock_lock(&reassembly->lock);
	expire(reassembly, now_ns, out);
	rte_spinlock_unlock(&reassembly->lock);
}

void
onvm_reassembly_forget(struct onvm_reassembly *reassembly, uint16_t port, enum onvm_drop reason,
		       const struct onvm_reassembly_out *out)
{
	rte_spinlock_lock(&reassembly->lock);
	for (uint32_t index = reassembly->first, behind; index != NONE; index = behind) {
		behind = reassembly->datagrams[index].behind;
		if (reassembly->datagrams[index].key.port == port)
			datagram_drop(reassembly, index, reason, out);
	}
	rte_spinlock_unlock(&reassembly->lock);
}

uint32_t
onvm_reassembly_count(const struct onvm_reassembly *reassembly)
{
	return __atomic_load_n(&reassembly->nb_held, __ATOMIC_RELAXED);
}

uint32_t
onvm_reassembly_count_of(struct onvm_reassembly *reassembly, uint16_t port)
{
	uint32_t nb = 0;

	rte_spinlock_lock(&reassembly->lock);
	for (uint32_t index = reassembly->first; index != NONE;
	     index = reassembly->datagrams[index].behind)
		if (reassembly->datagrams[index].key.port == port)
			nb += reassembly->datagrams[index].nb_held;
	rte_spinlock_unlock(&reassembly->lock);
	return nb;
}
