/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: fragments in any order, with any of them twice, become the datagram that they were cut from, byte
 * for byte, over IPv4 (with options) and IPv6 (with extension headers), in VLANs; it is cut into
 * fragments of its largest one's size, and those become the same datagram again. Fragments that
 * overlap with other bytes never get into a datagram: it is dropped whole. Networks, ports and
 * directions do not mix. Tables that are full lose the oldest, and what waits for too long is lost. With
 * virtual reassembly every fragment goes on, in the order of the datagram if the first one is late,
 * with the ports of the first. Each fragment goes on once or is counted once; no buffer is lost.
 */
#include "fragments/reassembly.h"

#include <string.h>

#include "fragments/cutting.h"
#include "test.h"
#include "test_eal.h"

#define BUFFERS 1024
#define LARGE 16
#define DATAGRAMS 16
#define PIECES 256
#define PORT 3
#define SECOND 1000000000ull

static struct onvm_packet_memory memory;
static struct onvm_reassembly *reassembly;
static uint64_t now_ns = SECOND;

/** What has come out. */
static struct {
	struct rte_mbuf *ready[ONVM_PIECES_MAX];
	uint32_t nb_ready, lost[ONVM_DROPS], nb_lost, nb_joined;
	uint16_t port;
} seen;

static void
on_ready(void *arg, struct rte_mbuf *mbuf)
{
	(void)arg;
	CHECK(seen.nb_ready < ONVM_PIECES_MAX);
	seen.ready[seen.nb_ready++] = mbuf;
}

static void
on_lost(void *arg, uint16_t port, enum onvm_drop reason, uint32_t nb)
{
	(void)arg;
	CHECK(nb != 0);
	seen.lost[reason] += nb;
	seen.nb_lost += nb;
	seen.port = port;
}

static void
on_joined(void *arg, uint16_t port, uint32_t nb)
{
	(void)arg;
	CHECK(port < ONVM_PORTS_MAX);
	seen.nb_joined += nb;
}

static const struct onvm_reassembly_out out = {NULL, on_ready, on_lost, on_joined};

static void
forget_seen(void)
{
	for (uint32_t i = 0; i < seen.nb_ready; i++)
		rte_pktmbuf_free(seen.ready[i]);
	memset(&seen, 0, sizeof(seen));
}

static uint32_t
nb_buffers_free(void)
{
	return rte_mempool_avail_count(memory.areas[0].pool) +
	       rte_mempool_avail_count(memory.large.pool);
}

/** A datagram as a frame, and where its IP header and its payload begin. */
struct whole {
	uint8_t frame[20000];
	uint32_t l3, header, length;
	uint8_t ip_version;
	uint16_t vlan;
	uint32_t id;
};

static void
write_checksum(uint8_t *ip)
{
	const uint32_t nb = (ip[0] & 15) * 4u;
	uint16_t checksum = 0;

	memcpy(ip + 10, &checksum, 2);
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, nb));
	memcpy(ip + 10, &checksum, 2);
}

static void
make_whole(struct whole *whole, uint64_t *seed, uint32_t payload)
{
	const uint32_t nb_options = test_random(seed) % 3;
	uint8_t *ip, *l4;

	memset(whole, 0, sizeof(*whole));
	whole->ip_version = test_random(seed) % 2 ? 4 : 6;
	whole->vlan = test_random(seed) % 2 ? (uint16_t)(1 + test_random(seed) % 100) : 0;
	whole->id = test_random(seed);
	whole->l3 = whole->vlan != 0 ? 18 : 14;
	whole->frame[0] = whole->frame[6] = 2;
	if (whole->vlan != 0) {
		onvm_store_be16(whole->frame + 12, 0x8100);
		onvm_store_be16(whole->frame + 14, whole->vlan);
	}
	ip = whole->frame + whole->l3;
	onvm_store_be16(ip - 2, whole->ip_version == 4 ? 0x0800 : 0x86dd);
	if (whole->ip_version == 4) {
		whole->header = 20 + 4 * nb_options;
		ip[0] = (uint8_t)(0x40 | whole->header / 4);
		ip[1] = 2; /* ECT(0) */
		onvm_store_be16(ip + 4, (uint16_t)whole->id);
		ip[8] = 64;
		ip[9] = ONVM_PROTO_UDP;
		onvm_store_be32(ip + 12, 0x0a000001);
		onvm_store_be32(ip + 16, 0x0a000002);
		for (uint32_t i = 0; i < nb_options; i++) { /* copied, and not */
			ip[20 + 4 * i] = i == 0 ? 0x94 : 0x44;
			ip[21 + 4 * i] = 4;
		}
	} else {
		whole->header = 40 + 8 * nb_options;
		ip[0] = 0x60;
		ip[1] = 2 << 4;
		ip[6] = nb_options > 0 ? ONVM_PROTO_HOPOPTS : ONVM_PROTO_UDP;
		ip[7] = 64;
		ip[8] = ip[24] = 0xfd;
		ip[39] = 2;
		for (uint32_t i = 0; i < nb_options; i++) {
			uint8_t *const extension = ip + 40 + 8 * i;

			extension[0] = i + 1 == nb_options ? ONVM_PROTO_UDP : ONVM_PROTO_ROUTING;
			extension[2] = 1; /* padding; a type of routing header */
			extension[3] = 4;
		}
	}
	whole->length = whole->header + payload;
	onvm_store_be16(ip + (whole->ip_version == 4 ? 2 : 4),
			(uint16_t)(whole->ip_version == 4 ? whole->length : whole->length - 40));
	if (whole->ip_version == 4)
		write_checksum(ip);
	l4 = ip + whole->header;
	for (uint32_t i = 0; i < payload; i++)
		l4[i] = (uint8_t)(i * 7 + i / 256);
	onvm_store_be16(l4, 4000);
	onvm_store_be16(l4 + 2, 53);
	onvm_store_be16(l4 + 4, (uint16_t)payload);
}

static uint32_t
payload_of(const struct whole *whole)
{
	return whole->length - whole->header;
}

/** Bytes [first, end) of the payload as a fragment. */
static struct rte_mbuf *
make_fragment(const struct whole *whole, uint32_t first, uint32_t end)
{
	const uint32_t added = whole->ip_version == 6 ? 8 : 0;
	const bool has_more = end < payload_of(whole);
	struct rte_mbuf *const mbuf = rte_pktmbuf_alloc(memory.areas[0].pool);
	uint8_t *data, *ip;

	CHECK(mbuf != NULL);
	data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	ip = data + whole->l3;
	memcpy(data, whole->frame, whole->l3 + whole->header);
	memcpy(ip + whole->header + added, whole->frame + whole->l3 + whole->header + first,
	       end - first);
	mbuf->data_len = (uint16_t)(whole->l3 + whole->header + added + end - first);
	if (whole->ip_version == 4) {
		onvm_store_be16(ip + 2, (uint16_t)(whole->header + end - first));
		onvm_store_be16(ip + 6, (uint16_t)(first / 8 | (has_more ? 0x2000u : 0)));
		write_checksum(ip);
	} else {
		uint8_t *const own = ip + whole->header;
		uint8_t *name = ip + 6;

		for (uint32_t at = 40; at < whole->header; at += 8)
			name = ip + at;
		own[0] = *name;
		*name = ONVM_PROTO_FRAGMENT;
		own[1] = 0;
		onvm_store_be16(own + 2, (uint16_t)(first | has_more));
		onvm_store_be32(own + 4, whole->id);
		onvm_store_be16(ip + 4, (uint16_t)(whole->header - 40 + 8 + end - first));
	}
	/* what a link of short frames appends */
	if (mbuf->data_len < 60)
		mbuf->data_len = 60;
	mbuf->pkt_len = mbuf->data_len;
	return mbuf;
}

static void
take_through(struct rte_mbuf *mbuf, uint16_t port, enum onvm_fragments mode)
{
	struct onvm_headers headers;

	CHECK(onvm_parse(rte_pktmbuf_mtod(mbuf, const uint8_t *), mbuf->data_len, &headers) ==
	      ONVM_L3_OK);
	CHECK(onvm_headers_is_fragment(&headers));
	onvm_reassembly_take(reassembly, mbuf, &headers, port, mode, memory.areas[0].pool, now_ns,
			     &out);
}

static void
take(struct rte_mbuf *mbuf)
{
	take_through(mbuf, PORT, ONVM_FRAGMENTS_REASSEMBLE);
}

/** Cut a datagram at random places; @return how many ranges */
static uint32_t
cut(const struct whole *whole, uint64_t *seed, uint32_t most, uint32_t ranges[][2])
{
	uint32_t nb = 0;

	for (uint32_t at = 0; at < payload_of(whole); nb++) {
		uint32_t bytes = (1 + test_random(seed) % (most / 8)) * 8;

		if (at == 0 && bytes >= payload_of(whole))
			bytes = (payload_of(whole) - 1) & ~7u;
		ranges[nb][0] = at;
		at = RTE_MIN(at + bytes, payload_of(whole));
		ranges[nb][1] = at;
	}
	return nb;
}

static void
shuffle(uint32_t ranges[][2], uint32_t nb, uint64_t *seed)
{
	for (uint32_t i = nb; i > 1; i--) {
		const uint32_t k = test_random(seed) % i;
		uint32_t kept[2];

		memcpy(kept, ranges[k], sizeof(kept));
		memcpy(ranges[k], ranges[i - 1], sizeof(kept));
		memcpy(ranges[i - 1], kept, sizeof(kept));
	}
}

static void
check_whole(const struct rte_mbuf *mbuf, const struct whole *whole)
{
	CHECK_EQUAL(mbuf->data_len, whole->l3 + whole->length);
	CHECK(memcmp(rte_pktmbuf_mtod(mbuf, const uint8_t *), whole->frame, mbuf->data_len) == 0);
	CHECK((mbuf->ol_flags & ONVM_OFFLOAD_FRAGMENTED) != 0);
}

/** All that waits is lost because its time is over; no buffer is left behind. */
static void
check_rest(uint32_t nb_free)
{
	forget_seen();
	now_ns += ONVM_REASSEMBLY_NS;
	onvm_reassembly_expire(reassembly, now_ns, &out);
	CHECK_EQUAL(seen.nb_lost, seen.lost[ONVM_DROP_FRAGMENT_TIMEOUT]);
	CHECK_EQUAL(onvm_reassembly_count(reassembly), 0);
	CHECK_EQUAL(nb_buffers_free(), nb_free);
	forget_seen();
}

static void
test_any_order_and_any_twice(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(1);
	static struct whole whole;
	uint32_t ranges[4000][2];

	for (int turn = 0; turn < 3000; turn++) {
		uint32_t nb, nb_twice = 0, nb_late = 0;

		make_whole(&whole, &seed, 16 + test_random(&seed) % 3000);
		do
			nb = cut(&whole, &seed, 1400, ranges);
		while (nb < 2 || nb > ONVM_PIECES_MAX);
		shuffle(ranges, nb, &seed);
		for (uint32_t i = 0; i < nb; i++) {
			take(make_fragment(&whole, ranges[i][0], ranges[i][1]));
			/* Of those after the last one, a single one: they may be another whole. */
			while (nb_late == 0 && test_random(&seed) % 4 == 0) {
				const uint32_t k = test_random(&seed) % (i + 1);

				take(make_fragment(&whole, ranges[k][0], ranges[k][1]));
				*(i + 1 < nb ? &nb_twice : &nb_late) += 1;
			}
		}
		CHECK_EQUAL(seen.nb_ready, 1);
		check_whole(seen.ready[0], &whole);
		/* Those that come after the datagram is complete begin another one. */
		CHECK_EQUAL(onvm_reassembly_count(reassembly) + seen.nb_lost, nb_twice + nb_late);
		CHECK_EQUAL(seen.nb_lost, seen.lost[ONVM_DROP_FRAGMENT_DUPLICATE]);
		CHECK(seen.nb_lost >= nb_twice);
		check_rest(nb_free);
	}
}

/** Fragments of a reassembled packet, by the code under test. */
static uint32_t
cut_again(struct rte_mbuf *mbuf, struct rte_mbuf **made)
{
	struct onvm_fragmenter fragmenter;
	uint32_t nb = 0;

	CHECK(onvm_fragmenter_begin(&fragmenter, mbuf));
	while (fragmenter.whole != NULL) {
		const uint16_t nb_made = onvm_fragmenter_next(&fragmenter, &memory,
							      memory.areas[0].pool, made + nb, 3);

		CHECK(nb_made != 0);
		nb += nb_made;
	}
	return nb;
}

static void
test_it_is_cut_again(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(2);
	struct rte_mbuf *made[64];
	static struct whole whole;

	for (int turn = 0; turn < 2000; turn++) {
		const uint32_t size = 200 + test_random(&seed) % 1000 / 8 * 8;
		uint32_t nb = 0, largest, at = 0;

		make_whole(&whole, &seed, size + 9 + test_random(&seed) % (15 * size));
		largest = whole.header + (whole.ip_version == 6 ? 8 : 0) + size;
		for (uint32_t first = 0; first < payload_of(&whole); first += size)
			take(make_fragment(&whole, first,
					   RTE_MIN(first + size, payload_of(&whole))));
		CHECK_EQUAL(seen.nb_ready, 1);
		CHECK_EQUAL(seen.ready[0]->tso_segsz, largest);
		seen.nb_ready = 0;
		nb = cut_again(seen.ready[0], made);
		CHECK_EQUAL(nb, (payload_of(&whole) + size - 1) / size);
		for (uint32_t i = 0; i < nb; i++) {
			const uint8_t *const data = rte_pktmbuf_mtod(made[i], const uint8_t *);
			struct onvm_headers headers;

			CHECK(onvm_parse(data, made[i]->data_len, &headers) == ONVM_L3_OK);
			CHECK_EQUAL(headers.fragment_offset, at);
			CHECK_EQUAL(headers.more_fragments, i + 1 < nb);
			if (whole.ip_version == 4) {
				CHECK_EQUAL(onvm_checksum_fold(onvm_checksum_add(0, data + whole.l3,
										 whole.header)),
					    0xffff);
				CHECK_EQUAL(onvm_load_be16(data + whole.l3 + 4), whole.id & 0xffff);
			}
			at += size;
		}
		for (uint32_t i = 0; i < nb; i++)
			take(made[(i + 1) % nb]); /* the last one in the middle */
		CHECK_EQUAL(seen.nb_ready, 1);
		check_whole(seen.ready[0], &whole);
		check_rest(nb_free);
	}
}

static void
test_what_is_not_cut(void)
{
	const uint32_t nb_free = nb_buffers_free();
	struct onvm_fragmenter fragmenter;
	uint64_t seed = test_seed(3);
	static struct whole whole;
	struct rte_mbuf *mbuf;

	make_whole(&whole, &seed, 1000);
	take(make_fragment(&whole, 0, 504));
	take(make_fragment(&whole, 504, 1000));
	CHECK_EQUAL(seen.nb_ready, 1);
	mbuf = seen.ready[0];
	/* An NF has cut the payload off. */
	onvm_store_be16(rte_pktmbuf_mtod_offset(mbuf, uint8_t *,
						whole.l3 + (whole.ip_version == 4 ? 2 : 4)),
			(uint16_t)(whole.header + 16 - (whole.ip_version == 4 ? 0 : 40)));
	CHECK(!onvm_fragmenter_begin(&fragmenter, mbuf));
	CHECK_EQUAL(mbuf->ol_flags & ONVM_OFFLOAD_FRAGMENTED, 0);
	/* It is no IP any more. */
	mbuf->ol_flags |= ONVM_OFFLOAD_FRAGMENTED;
	onvm_store_be16(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, whole.l3 - 2), 0x88b5);
	CHECK(!onvm_fragmenter_begin(&fragmenter, mbuf));
	check_rest(nb_free);
}

static void
test_congestion_stays(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(4);
	static struct whole whole;
	struct rte_mbuf *mbuf;

	for (int turn = 0; turn < 20; turn++) {
		uint32_t at;

		make_whole(&whole, &seed, 1000);
		at = whole.l3 + 1;
		mbuf = make_fragment(&whole, 504, 1000);
		*rte_pktmbuf_mtod_offset(mbuf, uint8_t *, at) |= whole.ip_version == 4 ? 3 : 0x30;
		take(mbuf);
		take(make_fragment(&whole, 0, 504));
		CHECK_EQUAL(seen.nb_ready, 1);
		whole.frame[at] |= whole.ip_version == 4 ? 3 : 0x30;
		if (whole.ip_version == 4)
			write_checksum(whole.frame + whole.l3);
		check_whole(seen.ready[0], &whole);
		check_rest(nb_free);
	}
}

/** Whether a range begins or ends at @p at. */
static bool
is_boundary(uint32_t at, uint32_t ranges[][2], uint32_t nb)
{
	for (uint32_t i = 0; i < nb; i++)
		if (ranges[i][0] == at || ranges[i][1] == at)
			return true;
	return false;
}

/** Fragments with other bytes that overlap: none of these bytes gets through. */
static void
test_overlaps(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(5);
	static struct whole whole, other;
	uint32_t ranges[4000][2];
	uint32_t nb_dead = 0;

	for (int turn = 0; turn < 3000; turn++) {
		uint32_t nb, forged, first, end, nb_tries = 0;

		make_whole(&whole, &seed, 64 + test_random(&seed) % 2000);
		other = whole;
		memset(other.frame + other.l3 + other.header, 0xee, payload_of(&other));
		do
			nb = cut(&whole, &seed, 600, ranges);
		while (nb < 2 || nb > ONVM_PIECES_MAX);
		/* One that begins or ends within another: no datagram consists of it and others. */
		do {
			first = test_random(&seed) % payload_of(&whole) & ~7u;
			end = RTE_MIN(first + 8 + (test_random(&seed) % 400 & ~7u),
				      payload_of(&whole));
		} while (is_boundary(first, ranges, nb) && is_boundary(end, ranges, nb) &&
			 nb_tries++ < 50);
		if (nb_tries > 50)
			continue;
		shuffle(ranges, nb, &seed);
		forged = test_random(&seed) % nb; /* before that one */
		for (uint32_t i = 0; i < nb; i++) {
			if (i == forged)
				take(make_fragment(&other, first, end));
			take(make_fragment(&whole, ranges[i][0], ranges[i][1]));
		}
		CHECK_EQUAL(seen.nb_ready, 0);
		CHECK_EQUAL(seen.nb_lost, seen.lost[ONVM_DROP_FRAGMENT_OVERLAP]);
		CHECK_EQUAL(seen.nb_lost + onvm_reassembly_count(reassembly), nb + 1);
		nb_dead += seen.nb_lost == nb + 1 && onvm_reassembly_count(reassembly) == 0;
		check_rest(nb_free);
	}
	CHECK(nb_dead > 2500);
}

static void
test_impossible_fragments(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(6);
	static struct whole whole;
	struct rte_mbuf *mbuf;
	uint8_t *ip;

	for (int turn = 0; turn < 20; turn++) {
		make_whole(&whole, &seed, 2000);
		take(make_fragment(&whole, 0, 1001)); /* no multiple of 8, and more to come */
		CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_BAD], 1);
		mbuf = make_fragment(&whole, 504, 1000); /* ends behind 64 KiB */
		ip = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, whole.l3);
		if (whole.ip_version == 4)
			onvm_store_be16(ip + 6, 0x1fff);
		else
			onvm_store_be16(ip + whole.header + 2, 0xfff8);
		take(mbuf);
		CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_BAD], 2);
		CHECK_EQUAL(onvm_reassembly_count(reassembly), 0);
		/* Two ends. */
		take(make_fragment(&whole, 1000, 2000));
		whole.length -= 504;
		take(make_fragment(&whole, 504, 1496));
		CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_OVERLAP], 2);
		check_rest(nb_free);
	}
}

static void
test_others_do_not_mix(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(7);
	static struct whole whole, other;

	for (int turn = 0; turn < 200; turn++) {
		uint8_t *ip;

		make_whole(&whole, &seed, 1000);
		other = whole;
		ip = other.frame + other.l3;
		switch (test_random(&seed) % 4) {
		case 0:
			if (other.vlan == 0)
				continue;
			onvm_store_be16(other.frame + 14, (uint16_t)(other.vlan + 1));
			break;
		case 1:
			ip[whole.ip_version == 4 ? 15 : 23] ^= 1; /* source */
			break;
		case 2:
			if (whole.ip_version == 6)
				continue;
			ip[9] = ONVM_PROTO_TCP;
			break;
		default:
			other.id++;
			onvm_store_be16(ip + 4, (uint16_t)(whole.ip_version == 4 ? other.id : 0));
			if (whole.ip_version == 6)
				onvm_store_be16(ip + 4, (uint16_t)(other.length - 40));
		}
		take(make_fragment(&whole, 0, 504));
		take(make_fragment(&other, 504, 1000));
		take_through(make_fragment(&whole, 504, 1000), PORT + 1, ONVM_FRAGMENTS_REASSEMBLE);
		CHECK_EQUAL(seen.nb_ready, 0);
		CHECK_EQUAL(onvm_reassembly_count(reassembly), 3);
		CHECK_EQUAL(onvm_reassembly_count_of(reassembly, PORT + 1), 1);
		onvm_reassembly_forget(reassembly, PORT + 1, ONVM_DROP_STOPPED, &out);
		CHECK_EQUAL(seen.lost[ONVM_DROP_STOPPED], 1);
		CHECK_EQUAL(seen.port, PORT + 1);
		take(make_fragment(&whole, 504, 1000));
		CHECK_EQUAL(seen.nb_ready, 1);
		check_rest(nb_free);
	}
}

static void
test_limits(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(8);
	static struct whole whole, first;

	/* Datagrams: the oldest give way. */
	make_whole(&first, &seed, 1000);
	take(make_fragment(&first, 0, 504));
	for (uint32_t i = 0; i < DATAGRAMS; i++) {
		make_whole(&whole, &seed, 1000);
		take(make_fragment(&whole, 504, 1000));
	}
	CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENTS_FULL], 1);
	take(make_fragment(&whole, 0, 504)); /* the newest is complete */
	CHECK_EQUAL(seen.nb_ready, 1);
	check_whole(seen.ready[0], &whole);
	check_rest(nb_free);
	/* Fragments of one datagram. */
	make_whole(&whole, &seed, 8 * ONVM_PIECES_MAX + 16);
	for (uint32_t at = 0; at < payload_of(&whole); at += 8)
		take(make_fragment(&whole, at, at + 8));
	CHECK_EQUAL(seen.nb_ready, 0);
	CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_TINY], ONVM_PIECES_MAX + 2);
	check_rest(nb_free);
	/* Fragments of all datagrams: more than three with as many as they may have do not go in. */
	for (uint32_t i = 0; i < 4; i++) {
		make_whole(&whole, &seed, 8 * ONVM_PIECES_MAX);
		for (uint32_t at = 8; at < payload_of(&whole); at += 8)
			take(make_fragment(&whole, at, at + 8));
	}
	CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENTS_FULL], 2 * (ONVM_PIECES_MAX - 1));
	CHECK_EQUAL(onvm_reassembly_count(reassembly), 2 * (ONVM_PIECES_MAX - 1));
	take(make_fragment(&whole, 0, 8));
	CHECK_EQUAL(seen.nb_ready, 1);
	check_rest(nb_free);
}

static void
test_without_buffers(void)
{
	const uint32_t nb_free = nb_buffers_free();
	struct rte_mbuf *taken[LARGE];
	uint64_t seed = test_seed(9);
	static struct whole whole;

	for (uint32_t i = 0; i < LARGE; i++)
		CHECK((taken[i] = rte_pktmbuf_alloc(memory.large.pool)) != NULL);
	make_whole(&whole, &seed, 4000);
	for (uint32_t at = 0; at < 4000; at += 1000)
		take(make_fragment(&whole, at, at + 1000));
	CHECK_EQUAL(seen.nb_ready, 0);
	CHECK_EQUAL(seen.lost[ONVM_DROP_RX_NO_BUFFER], 4);
	for (uint32_t i = 0; i < LARGE; i++)
		rte_pktmbuf_free(taken[i]);
	check_rest(nb_free);
}

static void
check_note(const struct rte_mbuf *mbuf)
{
	struct onvm_fragment_note note;

	memcpy(&note, mbuf->buf_addr, sizeof(note));
	CHECK((mbuf->ol_flags & ONVM_OFFLOAD_FRAGMENTED) != 0);
	CHECK_EQUAL(mbuf->tso_segsz, 0);
	CHECK_EQUAL(note.largest, 0);
	CHECK_EQUAL(onvm_load_be16(note.ports), 4000);
	CHECK_EQUAL(onvm_load_be16(note.ports + 2), 53);
}

static void
test_virtual(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(10);
	static struct whole whole;
	uint32_t ranges[4000][2];

	for (int turn = 0; turn < 2000; turn++) {
		uint32_t nb, nb_before = 0, at = 0;

		make_whole(&whole, &seed, 16 + test_random(&seed) % 3000);
		do
			nb = cut(&whole, &seed, 1400, ranges);
		while (nb < 2 || nb > ONVM_PIECES_MAX);
		shuffle(ranges, nb, &seed);
		while (ranges[nb_before][0] != 0)
			nb_before++;
		for (uint32_t i = 0; i < nb; i++) {
			take_through(make_fragment(&whole, ranges[i][0], ranges[i][1]), PORT,
				     ONVM_FRAGMENTS_VIRTUAL);
			CHECK_EQUAL(seen.nb_ready, i < nb_before ? 0 : i + 1);
		}
		CHECK_EQUAL(seen.nb_lost, 0);
		for (uint32_t i = 0; i < nb; i++) {
			struct onvm_headers headers;

			check_note(seen.ready[i]);
			(void)onvm_parse(rte_pktmbuf_mtod(seen.ready[i], const uint8_t *),
					 seen.ready[i]->data_len, &headers);
			if (i <= nb_before) { /* those that had to wait */
				CHECK(headers.fragment_offset >= at);
				at = headers.fragment_offset;
			} else {
				CHECK_EQUAL(headers.fragment_offset, ranges[i][0]);
			}
		}
		check_rest(nb_free);
	}
}

static void
test_virtual_refuses(void)
{
	const uint32_t nb_free = nb_buffers_free();
	uint64_t seed = test_seed(11);
	static struct whole whole;

	for (int turn = 0; turn < 20; turn++) {
		make_whole(&whole, &seed, 1000);
		/* What overlaps one that has gone on, with all that follows. */
		take_through(make_fragment(&whole, 0, 504), PORT, ONVM_FRAGMENTS_VIRTUAL);
		take_through(make_fragment(&whole, 8, 104), PORT, ONVM_FRAGMENTS_VIRTUAL);
		take_through(make_fragment(&whole, 504, 1000), PORT, ONVM_FRAGMENTS_VIRTUAL);
		CHECK_EQUAL(seen.nb_ready, 1);
		CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_OVERLAP], 2);
		/* A second time. */
		whole.id++;
		onvm_store_be16(whole.frame + whole.l3 + 4,
				(uint16_t)(whole.ip_version == 4 ? whole.id : whole.length - 40));
		take_through(make_fragment(&whole, 0, 504), PORT, ONVM_FRAGMENTS_VIRTUAL);
		take_through(make_fragment(&whole, 0, 504), PORT, ONVM_FRAGMENTS_VIRTUAL);
		CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_DUPLICATE], 1);
		/* A first one without its whole header: TCP, of which 8 bytes come. */
		if (whole.ip_version == 4) {
			whole.frame[whole.l3 + 9] = ONVM_PROTO_TCP;
			take_through(make_fragment(&whole, 8, 504), PORT, ONVM_FRAGMENTS_VIRTUAL);
			take_through(make_fragment(&whole, 0, 8), PORT, ONVM_FRAGMENTS_VIRTUAL);
			CHECK_EQUAL(seen.lost[ONVM_DROP_FRAGMENT_TINY], 2);
		}
		check_rest(nb_free);
	}
}

int
main(void)
{
	const uint32_t nodes[] = {0};

	test_eal_init("test", "128");
	CHECK(onvm_packet_memory_init(&memory, nodes, 1, BUFFERS, LARGE, 2048, 0) == 0);
	CHECK(onvm_packet_memory_add_large(&memory) == 0);
	reassembly = onvm_reassembly_create(&memory, DATAGRAMS, PIECES);
	CHECK(reassembly != NULL);
	RUN(test_any_order_and_any_twice);
	RUN(test_it_is_cut_again);
	RUN(test_what_is_not_cut);
	RUN(test_congestion_stays);
	RUN(test_overlaps);
	RUN(test_impossible_fragments);
	RUN(test_others_do_not_mix);
	RUN(test_limits);
	RUN(test_without_buffers);
	RUN(test_virtual);
	RUN(test_virtual_refuses);
	onvm_reassembly_free(reassembly);
	onvm_packet_memory_free(&memory);
	return 0;
}
