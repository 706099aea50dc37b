/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: what is left to do for packets is done, and done right whatever NFs wrote meanwhile.
 * Merged TCP and UDP of random sizes, over IPv4 and IPv6, with VLAN tags, is cut: every piece has
 * right checksums (by onvm/verify.h, which has its own tests), and the pieces in order are the
 * whole: payload, sequence numbers, IP identifications, flags. Without buffers the rest is counted.
 * Headers that a kernel may write are understood and come out as they went in; headers that lie are
 * refused, and none makes us read or write outside the frame (ASan).
 */
#include "ports/offload.h"

#include <string.h>

#include <onvm/verify.h>

#include "ports/vnet.h"
#include "test.h"
#include "test_eal.h"

#define BUFFERS 256
#define LARGE 32
#define FRAME_MAX 65000

#define FIN 0x01
#define PSH 0x08
#define ACK 0x10
#define CWR 0x80

static struct onvm_packet_memory memory;

struct shape {
	uint8_t ip_version, protocol;
	uint32_t nb_vlans, nb_options, payload;
	uint16_t segment;
	uint8_t flags;
};

/** Write a frame of a shape, its transport checksum left at @p junk; @return its bytes. */
static uint32_t
make_frame(uint8_t *data, const struct shape *shape, uint16_t junk)
{
	const uint32_t l4_header = shape->protocol == ONVM_PROTO_TCP ? 20 + shape->nb_options : 8;
	const uint32_t ip_header = shape->ip_version == 4 ? 20 : 40;
	const uint32_t l4_length = l4_header + shape->payload;
	uint8_t *ip = data + 14 + 4 * shape->nb_vlans, *l4 = ip + ip_header;
	uint16_t checksum;

	memset(data, 0, (size_t)(l4 + l4_header - data));
	data[0] = data[6] = 2;
	for (uint32_t i = 0; i < shape->nb_vlans; i++) {
		onvm_store_be16(data + 12 + 4 * i, 0x8100);
		onvm_store_be16(data + 14 + 4 * i, (uint16_t)(100 + i));
	}
	onvm_store_be16(ip - 2, shape->ip_version == 4 ? 0x0800 : 0x86dd);
	if (shape->ip_version == 4) {
		ip[0] = 0x45;
		onvm_store_be16(ip + 2, (uint16_t)(ip_header + l4_length));
		onvm_store_be16(ip + 4, 0xfffe); /* the identification wraps */
		ip[8] = 64;
		ip[9] = shape->protocol;
		onvm_store_be32(ip + 12, 0x0a000001);
		onvm_store_be32(ip + 16, 0x0a000002);
		checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, 20));
		memcpy(ip + 10, &checksum, 2);
	} else {
		ip[0] = 0x60;
		onvm_store_be16(ip + 4, (uint16_t)l4_length);
		ip[6] = shape->protocol;
		ip[7] = 64;
		ip[8] = ip[24] = 0xfd;
		ip[39] = 2;
	}
	onvm_store_be16(l4, 40000);
	onvm_store_be16(l4 + 2, 443);
	if (shape->protocol == ONVM_PROTO_TCP) {
		onvm_store_be32(l4 + 4, 0xfffffff0); /* the sequence wraps */
		l4[12] = (uint8_t)(l4_header / 4 << 4);
		l4[13] = shape->flags;
		onvm_store_be16(l4 + 16, junk);
	} else {
		onvm_store_be16(l4 + 4, (uint16_t)l4_length);
		onvm_store_be16(l4 + 6, junk);
	}
	for (uint32_t i = 0; i < shape->payload; i++)
		l4[l4_header + i] = (uint8_t)(i * 7 + i / 256);
	return (uint32_t)(l4 + l4_length - data);
}

static struct rte_mbuf *
make_mbuf(const struct shape *shape, uint16_t junk)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(memory.large.pool);
	const bool is_tcp = shape->protocol == ONVM_PROTO_TCP;

	CHECK(mbuf != NULL);
	mbuf->data_len = (uint16_t)make_frame(rte_pktmbuf_mtod(mbuf, uint8_t *), shape, junk);
	mbuf->pkt_len = mbuf->data_len;
	mbuf->ol_flags |= is_tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
	if (shape->segment != 0) {
		mbuf->ol_flags |= is_tcp ? RTE_MBUF_F_TX_TCP_SEG : RTE_MBUF_F_TX_UDP_SEG;
		mbuf->tso_segsz = shape->segment;
	}
	return mbuf;
}

static struct shape
random_shape(uint64_t *seed)
{
	struct shape shape = {
		.ip_version = test_random(seed) % 2 ? 4 : 6,
		.protocol = test_random(seed) % 3 ? ONVM_PROTO_TCP : ONVM_PROTO_UDP,
		.nb_vlans = test_random(seed) % 3,
		.nb_options = test_random(seed) % 11 * 4,
		.payload = 1 + test_random(seed) % (test_random(seed) % 2 ? 4000 : FRAME_MAX - 200),
		.segment = (uint16_t)(500 + test_random(seed) % 1000),
		.flags = (uint8_t)(ACK | (test_random(seed) & (FIN | PSH | CWR))),
	};
	return shape;
}

static uint32_t
nb_buffers_free(void)
{
	return rte_mempool_avail_count(memory.areas[0].pool) +
	       rte_mempool_avail_count(memory.large.pool);
}

/** A piece has what the whole has from @p offset of its payload on. */
static void
check_piece(const struct rte_mbuf *piece, const struct shape *shape, uint32_t offset,
	    uint32_t number, bool is_only)
{
	static uint8_t whole[FRAME_MAX];
	const uint8_t *data = rte_pktmbuf_mtod(piece, const uint8_t *);
	const bool is_tcp = shape->protocol == ONVM_PROTO_TCP;
	struct onvm_headers headers;
	uint32_t header, payload, nb_bytes;

	nb_bytes = make_frame(whole, shape, 0);
	header = nb_bytes - shape->payload;
	payload = piece->data_len - header;
	CHECK(!onvm_offload_has(piece));
	CHECK(onvm_parse(data, piece->data_len, &headers) == ONVM_L3_OK);
	CHECK(headers.l4_status == ONVM_L4_OK);
	CHECK_EQUAL(headers.l4_offset + headers.l4_length, piece->data_len);
	CHECK(onvm_verify_l3(data, &headers) ==
	      (shape->ip_version == 4 ? ONVM_SUM_OK : ONVM_SUM_UNKNOWN));
	CHECK_EQUAL(onvm_verify_l4(data, &headers), ONVM_SUM_OK);
	CHECK(is_only || payload <= shape->segment);
	CHECK(memcmp(data + header, whole + header + offset, payload) == 0);
	if (shape->ip_version == 4)
		CHECK_EQUAL(onvm_load_be16(data + headers.l3_offset + 4),
			    (uint16_t)(0xfffe + number));
	if (is_tcp) {
		const uint8_t *tcp = data + headers.l4_offset;
		const bool is_last = offset + payload == shape->payload;
		uint8_t flags = shape->flags;

		if (!is_last)
			flags &= (uint8_t)~(FIN | PSH);
		if (number != 0)
			flags &= (uint8_t)~CWR;
		CHECK_EQUAL(onvm_load_be32(tcp + 4), (uint32_t)(0xfffffff0 + offset));
		CHECK_EQUAL(tcp[13], flags);
		CHECK(memcmp(tcp + 20, whole + headers.l4_offset + 20, shape->nb_options) == 0);
	}
}

static void
test_merged_packets_are_cut(void)
{
	uint64_t seed = test_seed(1);
	const uint32_t nb_before = nb_buffers_free();

	for (int i = 0; i < 2000; i++) {
		const struct shape shape = random_shape(&seed);
		struct rte_mbuf *given[] = {make_mbuf(&shape, (uint16_t)test_random(&seed))};
		const uint32_t nb_wanted = (shape.payload + shape.segment - 1) / shape.segment;
		uint32_t nb_added = 0, nb_pieces = 0, offset = 0;
		struct onvm_cutter cutter;

		onvm_cutter_begin(&cutter, given, 1, false);
		while (!onvm_cutter_is_done(&cutter)) {
			struct rte_mbuf *pieces[8];
			const uint16_t nb = onvm_cutter_next(&cutter, &memory, memory.areas[0].pool,
							     pieces, 1 + test_random(&seed) % 8,
							     &nb_added);

			CHECK(nb != 0);
			for (uint16_t k = 0; k < nb; k++) {
				const uint32_t l4 = shape.protocol == ONVM_PROTO_TCP ?
							    20 + shape.nb_options :
							    8;
				const uint32_t header = 14 + 4 * shape.nb_vlans +
							(shape.ip_version == 4 ? 20 : 40) + l4;

				check_piece(pieces[k], &shape, offset, nb_pieces++, nb_wanted == 1);
				offset += pieces[k]->data_len - header;
				rte_pktmbuf_free(pieces[k]);
			}
		}
		CHECK_EQUAL(nb_pieces, nb_wanted);
		CHECK_EQUAL(offset, shape.payload);
		CHECK_EQUAL(nb_added, nb_pieces - 1);
		CHECK_EQUAL(nb_buffers_free(), nb_before);
	}
}

/** Pieces larger than a buffer, of links with jumbo frames, come in large ones. */
static void
test_large_pieces(void)
{
	const struct shape shape = {.ip_version = 6,
				    .protocol = ONVM_PROTO_TCP,
				    .payload = 30000,
				    .segment = 8900,
				    .flags = ACK};
	struct rte_mbuf *given[] = {make_mbuf(&shape, 0)}, *pieces[8];
	struct onvm_cutter cutter;
	uint32_t nb_added = 0;

	onvm_cutter_begin(&cutter, given, 1, false);
	CHECK_EQUAL(onvm_cutter_next(&cutter, &memory, memory.areas[0].pool, pieces, 8, &nb_added),
		    4);
	CHECK(onvm_cutter_is_done(&cutter));
	for (uint32_t i = 0; i < 4; i++) {
		check_piece(pieces[i], &shape, i * 8900, i, false);
		rte_pktmbuf_free(pieces[i]);
	}
}

/** When buffers end in the middle, work stops there and goes on, or the rest is given back. */
static void
test_without_buffers(void)
{
	const struct shape shape = {.ip_version = 4,
				    .protocol = ONVM_PROTO_TCP,
				    .payload = 14000,
				    .segment = 1400,
				    .flags = ACK};
	const uint32_t nb_before = nb_buffers_free();
	struct rte_mbuf *given[] = {make_mbuf(&shape, 0), make_mbuf(&shape, 0)};
	struct rte_mbuf *all[BUFFERS], *pieces[20];
	struct onvm_cutter cutter;
	uint32_t nb_added = 0, nb_taken = 0;

	while (nb_taken < BUFFERS - 3)
		all[nb_taken++] = rte_pktmbuf_alloc(memory.areas[0].pool);
	onvm_cutter_begin(&cutter, given, 2, false);
	CHECK_EQUAL(onvm_cutter_next(&cutter, &memory, memory.areas[0].pool, pieces, 20, &nb_added),
		    3);
	CHECK_EQUAL(onvm_cutter_next(&cutter, &memory, memory.areas[0].pool, pieces + 3, 20,
				     &nb_added),
		    0);
	rte_pktmbuf_free(all[--nb_taken]);
	CHECK_EQUAL(onvm_cutter_next(&cutter, &memory, memory.areas[0].pool, pieces + 3, 20,
				     &nb_added),
		    1);
	for (uint32_t i = 0; i < 4; i++)
		check_piece(pieces[i], &shape, i * 1400, i, false);
	CHECK_EQUAL(nb_added, 3);
	CHECK_EQUAL(onvm_cutter_free(&cutter), 2);
	CHECK(onvm_cutter_is_done(&cutter));
	rte_pktmbuf_free_bulk(pieces, 4);
	rte_pktmbuf_free_bulk(all, nb_taken);
	CHECK_EQUAL(nb_buffers_free(), nb_before);
}

/** An NF may rewrite what it likes, and leave the checksum wrong: it is made at the end. */
static void
test_partial_packets_are_completed(void)
{
	uint64_t seed = test_seed(2);

	for (int i = 0; i < 2000; i++) {
		struct shape shape = random_shape(&seed);
		struct onvm_offload offload;
		struct onvm_headers headers;
		struct rte_mbuf *mbuf;
		uint8_t *data;

		shape.payload %= 1400;
		shape.segment = 0;
		mbuf = make_mbuf(&shape, (uint16_t)test_random(&seed));
		data = rte_pktmbuf_mtod(mbuf, uint8_t *);
		CHECK(onvm_parse(data, mbuf->data_len, &headers) == ONVM_L3_OK);
		data[headers.l3_offset + (shape.ip_version == 4 ? 15 : 23)] ^= 0x55;
		onvm_store_be16(data + headers.l4_offset, (uint16_t)test_random(&seed));
		onvm_offload_read(mbuf, &offload);
		CHECK(offload.is_partial && !offload.is_merged);
		onvm_offload_complete(mbuf, &offload);
		CHECK(!onvm_offload_has(mbuf));
		CHECK_EQUAL(onvm_verify_l4(data, &headers), ONVM_SUM_OK);
		rte_pktmbuf_free(mbuf);
	}
}

/** A packet that is no TCP or UDP any more, or has become short, has less or nothing left to do. */
static void
test_packets_that_have_changed(void)
{
	const struct shape shape = {.ip_version = 4,
				    .protocol = ONVM_PROTO_TCP,
				    .payload = 3000,
				    .segment = 1400,
				    .flags = ACK};
	struct rte_mbuf *mbuf = make_mbuf(&shape, 0);
	uint8_t *ip = rte_pktmbuf_mtod(mbuf, uint8_t *) + 14;
	struct onvm_offload offload;
	struct virtio_net_hdr header;

	onvm_store_be16(ip + 2, 40); /* a reset in its place */
	mbuf->data_len = 54;
	onvm_offload_read(mbuf, &offload);
	CHECK(offload.is_partial && !offload.is_merged);
	ip[9] = ONVM_PROTO_ICMP; /* an error in its place */
	onvm_offload_read(mbuf, &offload);
	CHECK(!offload.is_partial && !offload.is_merged);
	CHECK_EQUAL(onvm_vnet_write(mbuf, &header), 54);
	CHECK(header.flags == 0 && header.gso_type == VIRTIO_NET_HDR_GSO_NONE);
	rte_pktmbuf_free(mbuf);
}

/** The header of a frame that a kernel gives, for a shape. */
static struct virtio_net_hdr
header_of(const struct shape *shape, uint32_t length)
{
	const bool is_tcp = shape->protocol == ONVM_PROTO_TCP;
	const uint32_t l4 = 14 + 4 * shape->nb_vlans + (shape->ip_version == 4 ? 20 : 40);
	struct virtio_net_hdr header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = (uint16_t)l4,
		.csum_offset = is_tcp ? 16 : 6,
	};

	RTE_SET_USED(length);
	if (shape->payload <= shape->segment)
		return header;
	header.gso_size = shape->segment;
	header.hdr_len = (uint16_t)(length - shape->payload);
	header.gso_type = (uint8_t)(!is_tcp		   ? ONVM_VNET_GSO_UDP_L4 :
				    shape->ip_version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 :
							     VIRTIO_NET_HDR_GSO_TCPV6);
	if (is_tcp && shape->flags & CWR)
		header.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	return header;
}

static void
test_headers_come_out_as_they_went_in(void)
{
	uint64_t seed = test_seed(3);

	for (int i = 0; i < 2000; i++) {
		const struct shape shape = random_shape(&seed);
		struct rte_mbuf *mbuf = make_mbuf(&shape, (uint16_t)test_random(&seed));
		const struct virtio_net_hdr given = header_of(&shape, mbuf->data_len);
		const uint8_t *field = rte_pktmbuf_mtod(mbuf, uint8_t *) + given.csum_start +
				       given.csum_offset;
		struct virtio_net_hdr got;
		struct onvm_offload offload;
		uint16_t sum;

		mbuf->ol_flags = 0;
		CHECK(onvm_vnet_read(&given, mbuf));
		(void)onvm_vnet_write(mbuf, &got);
		CHECK(memcmp(&given, &got, sizeof(got)) == 0);
		/* The kernel adds the payload to what stands in the field. */
		onvm_offload_read(mbuf, &offload);
		memcpy(&sum, field, sizeof(sum));
		CHECK_EQUAL(sum, onvm_checksum_fold(offload.pseudo));
		rte_pktmbuf_free(mbuf);
	}
}

/** Any header before any bytes, in memory of just their length. */
static void
test_headers_that_lie(void)
{
	uint64_t seed = test_seed(4);
	uint32_t nb_true = 0;

	for (int i = 0; i < 300000; i++) {
		static uint8_t whole[FRAME_MAX];
		const struct shape shape = random_shape(&seed);
		uint32_t length = 14 + test_random(&seed) % 200;
		struct rte_mbuf mbuf = {.buf_len = 2048};
		struct virtio_net_hdr header;
		struct onvm_offload offload;
		struct shape small = shape;
		uint8_t *data;

		small.payload %= 100;
		length = RTE_MIN(length, make_frame(whole, &small, 0));
		data = malloc(length);
		memcpy(data, whole, length);
		header = header_of(&small, length);
		for (uint32_t k = test_random(&seed) % 4; k != 0; k--)
			((uint8_t *)&header)[test_random(&seed) % sizeof(header)] =
				(uint8_t)test_random(&seed);
		for (uint32_t k = test_random(&seed) % 3; k != 0; k--)
			data[test_random(&seed) % length] = (uint8_t)test_random(&seed);
		mbuf.buf_addr = data;
		mbuf.data_len = (uint16_t)length;
		mbuf.pkt_len = length;
		if (onvm_vnet_read(&header, &mbuf)) {
			nb_true++;
			(void)onvm_vnet_write(&mbuf, &header);
			if (onvm_offload_has(&mbuf)) {
				onvm_offload_read(&mbuf, &offload);
				CHECK(offload.end <= length);
				CHECK(!offload.is_merged || offload.header < offload.end);
				onvm_offload_complete(&mbuf, &offload);
			}
		}
		free(data);
	}
	CHECK(nb_true > 1000);
}

/** Checksums of other protocols are made at once: SCTP's vector is RFC 9260's, by another program. */
static void
test_other_protocols(void)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(memory.areas[0].pool);
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	const struct shape shape = {.ip_version = 4, .protocol = ONVM_PROTO_UDP, .payload = 8};
	struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					.csum_start = 34,
					.csum_offset = 8};
	/* CRC32c of 16 bytes: 1, 2, ..., 8, then four of 0, then 13, ..., 16 (RFC 3720 B.4's poly). */
	const uint8_t sctp[16] = {1, 2, 3, 4, 5, 6, 7, 8, 0xaa, 0xaa, 0xaa, 0xaa, 13, 14, 15, 16};
	uint32_t crc = UINT32_MAX;

	mbuf->data_len = (uint16_t)make_frame(data, &shape, 0);
	data[23] = ONVM_PROTO_SCTP;
	memcpy(data + 34, sctp, sizeof(sctp));
	CHECK(onvm_vnet_read(&header, mbuf));
	CHECK(!onvm_offload_has(mbuf));
	for (uint32_t i = 0; i < sizeof(sctp); i++) {
		crc ^= i >= 8 && i < 12 ? 0 : sctp[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	crc = ~crc;
	CHECK(data[42] == (uint8_t)crc && data[43] == (uint8_t)(crc >> 8) &&
	      data[44] == (uint8_t)(crc >> 16) && data[45] == (uint8_t)(crc >> 24));
	/* Inside a tunnel: the sum goes to where the header says, over all that follows. */
	header.csum_start = 40;
	header.csum_offset = 4;
	memset(data + 44, 0, 2);
	CHECK(onvm_vnet_read(&header, mbuf));
	CHECK_EQUAL(onvm_checksum_fold(onvm_checksum_add(0, data + 40, mbuf->data_len - 40u)),
		    0xffff);
	rte_pktmbuf_free(mbuf);
}

/** A frame is received in a pair of buffers and lies in one; a tag from beside it goes back in. */
static void
test_receiving(void)
{
	const uint32_t lengths[] = {60,
				    2048,
				    memory.stride - RTE_PKTMBUF_HEADROOM,
				    memory.stride - RTE_PKTMBUF_HEADROOM + 1,
				    9014,
				    FRAME_MAX};
	static struct onvm_vnet_queue queue;
	const struct onvm_vnet_slot *slot = &queue.slots[0];
	static uint8_t frame[FRAME_MAX];

	for (uint32_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 13 + i / 256);
	for (uint32_t n = 0; n < RTE_DIM(lengths); n++) {
		uint32_t length = lengths[n], done = 0;
		struct rte_mbuf *mbuf;

		CHECK_EQUAL(onvm_vnet_prepare(&queue, 1, &memory, memory.areas[0].pool), 1);
		for (int part = 1; part < ONVM_VNET_PARTS; part++) {
			const uint32_t nb =
				RTE_MIN(length - done, (uint32_t)slot->parts[part].iov_len);

			memcpy(slot->parts[part].iov_base, frame + done, nb);
			done += nb;
		}
		CHECK_EQUAL(done, length);
		mbuf = onvm_vnet_take(&queue, 0, (ssize_t)(length + sizeof(slot->header)), &memory);
		CHECK(mbuf != NULL);
		CHECK_EQUAL(mbuf->data_len, length);
		CHECK(memcmp(rte_pktmbuf_mtod(mbuf, void *), frame, length) == 0);
		onvm_vnet_insert_vlan(mbuf, 0x88a8, 0x6123);
		CHECK_EQUAL(mbuf->data_len, length + 4);
		CHECK(memcmp(rte_pktmbuf_mtod(mbuf, void *), frame, 12) == 0);
		CHECK(memcmp(rte_pktmbuf_mtod(mbuf, uint8_t *) + 12, "\x88\xa8\x61\x23", 4) == 0);
		CHECK(memcmp(rte_pktmbuf_mtod(mbuf, uint8_t *) + 16, frame + 12, length - 12) == 0);
		rte_pktmbuf_free(mbuf);
	}
	CHECK_EQUAL(onvm_vnet_bad(&queue), 0);
	CHECK_EQUAL(onvm_vnet_prepare(&queue, 1, &memory, memory.areas[0].pool), 1);
	CHECK(onvm_vnet_take(&queue, 0, -1, &memory) == NULL);
	CHECK(onvm_vnet_take(&queue, 0, sizeof(slot->header) + 13, &memory) == NULL);
	CHECK_EQUAL(onvm_vnet_bad(&queue), 2);
	onvm_vnet_free(&queue);
}

int
main(void)
{
	const uint32_t nodes[] = {0};

	test_eal_init("test", "128");
	CHECK(onvm_packet_memory_init(&memory, nodes, 1, BUFFERS, LARGE, 2048, 0) == 0);
	CHECK(onvm_packet_memory_add_large(&memory) == 0);
	RUN(test_merged_packets_are_cut);
	RUN(test_large_pieces);
	RUN(test_without_buffers);
	RUN(test_partial_packets_are_completed);
	RUN(test_packets_that_have_changed);
	RUN(test_headers_come_out_as_they_went_in);
	RUN(test_headers_that_lie);
	RUN(test_other_protocols);
	RUN(test_receiving);
	onvm_packet_memory_free(&memory);
	return 0;
}
