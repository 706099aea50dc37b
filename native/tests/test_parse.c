/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: the parser never reads outside the frame, whatever is in it, and neither does code that
 * reads the tuple where it says. Frames lie in allocations of exactly their length, so
 * AddressSanitizer sees one byte too many.
 *  - every prefix of a few good frames
 *  - mutated frames: bytes changed, cut, length fields that lie
 * That its answers are right is tests/unit/sdk's and the captures' subject.
 */
#include <string.h>

#include <onvm/parse.h>
#include <onvm/tuple.h>

#include "test.h"

/* Ethernet, VLAN, IPv4 with 4 bytes of options, UDP */
static const uint8_t vlan_udp[] = {
	2,    0,    0, 0,  0, 1,  2, 0, 0,   0,	  0, 2, 0x81, 0, 0, 7, 8,  0, /* Ethernet, VLAN 7 */
	0x46, 0,    0, 34, 0, 0,  0, 0, 64,  17,  0, 0, 10,   0, 0, 1, 10, 0,
	0,    2,    1, 1,  1, 0,		  /* IPv4 */
	0x12, 0x34, 0, 53, 0, 10, 0, 0, 'h', 'i', /* UDP */
};

/* Ethernet, IPv6, hop-by-hop options, fragment header, TCP */
static const uint8_t ipv6_tcp[] = {
	2,    0,  0, 0, 0, 1,  2, 0,  0, 0, 0, 2, 0x86, 0xdd,			/* Ethernet */
	0x60, 0,  0, 0, 0, 36, 0, 64,						/* IPv6 */
	0xfd, 0,  0, 0, 0, 0,  0, 0,  0, 0, 0, 0, 0,	0,    0, 1,		/* source */
	0xfd, 0,  0, 0, 0, 0,  0, 0,  0, 0, 0, 0, 0,	0,    0, 2,		/* destination */
	44,   0,  1, 4, 0, 0,  0, 0,						/* hop-by-hop */
	6,    0,  0, 1, 0, 0,  0, 9,						/* first fragment */
	0,    80, 4, 0, 0, 0,  0, 1,  0, 0, 0, 0, 0x50, 2,    4, 0, 0, 0, 0, 0, /* TCP */
};

static void
parse_copy(const uint8_t *frame, uint32_t length)
{
	uint8_t *exact = malloc(length ? length : 1);
	const struct onvm_pkt pkt = {.data = exact, .length = (uint16_t)length};
	struct onvm_headers headers;
	struct onvm_layout layout;
	struct onvm_tuple tuple;

	CHECK(exact != NULL);
	memcpy(exact, frame, length);
	onvm_parse(exact, length, &headers);
	layout = onvm_layout_of(&pkt);
	onvm_tuple_read(&pkt, &layout, &tuple);
	CHECK_EQUAL(tuple.ip_version, headers.ip_version);
	CHECK_EQUAL(tuple.protocol, headers.protocol);
	if (headers.has_ports) {
		CHECK_EQUAL(onvm_load_be16(tuple.src_port), headers.src_port);
		CHECK_EQUAL(onvm_load_be16(tuple.dst_port), headers.dst_port);
	}
	if (headers.l3_status == ONVM_L3_OK) {
		CHECK(headers.l3_offset <= length);
		CHECK(headers.l4_offset <= length);
		CHECK((uint32_t)headers.l4_offset + headers.l4_length <= length);
	}
	free(exact);
}

static void
test_good_frames_are_understood(void)
{
	struct onvm_headers headers;

	CHECK_EQUAL(onvm_parse(vlan_udp, sizeof(vlan_udp), &headers), ONVM_L3_OK);
	CHECK_EQUAL(headers.l4_status, ONVM_L4_OK);
	CHECK_EQUAL(headers.protocol, 17);
	CHECK_EQUAL(headers.vlan_tci[0], 7);
	CHECK_EQUAL(headers.src_port, 0x1234);
	CHECK_EQUAL(headers.dst_port, 53);

	CHECK_EQUAL(onvm_parse(ipv6_tcp, sizeof(ipv6_tcp), &headers), ONVM_L3_OK);
	CHECK_EQUAL(headers.protocol, 6);
	CHECK(headers.more_fragments);
	CHECK_EQUAL(headers.fragment_offset, 0);
	CHECK_EQUAL(headers.src_port, 80);
}

static void
test_every_prefix_is_read_inside_its_bounds(void)
{
	for (uint32_t length = 0; length <= sizeof(vlan_udp); length++)
		parse_copy(vlan_udp, length);
	for (uint32_t length = 0; length <= sizeof(ipv6_tcp); length++)
		parse_copy(ipv6_tcp, length);
}

static void
test_mutated_frames_are_read_inside_their_bounds(void)
{
	uint8_t frame[sizeof(ipv6_tcp)];
	uint64_t seed = test_seed(5);

	for (int round = 0; round < 300000; round++) {
		const bool is_v6 = round % 2;
		const uint32_t full = is_v6 ? sizeof(ipv6_tcp) : sizeof(vlan_udp);
		const uint32_t nb_changes = test_random(&seed) % 6;

		memcpy(frame, is_v6 ? ipv6_tcp : vlan_udp, full);
		for (uint32_t i = 0; i < nb_changes; i++)
			frame[12 + test_random(&seed) % (full - 12)] = (uint8_t)test_random(&seed);
		parse_copy(frame, test_random(&seed) % 4 ? full : test_random(&seed) % full);
	}
}

int
main(void)
{
	RUN(test_good_frames_are_understood);
	RUN(test_every_prefix_is_read_inside_its_bounds);
	RUN(test_mutated_frames_are_read_inside_their_bounds);
	return 0;
}
