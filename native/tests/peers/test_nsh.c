/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: headers between hosts: what is written is read again, byte by byte as RFC 8300 shows it;
 * what is damaged or cut short anywhere is refused or harmless; ECN over a tunnel is the table of
 * RFC 6040 section 4.2, with checksums right, for IPv4, IPv6 and behind VLAN tags.
 */
#include "peers/nsh.h"

#include <string.h>

#include "peers/ecn.h"
#include "test.h"

#define VNI 0x123456

static const struct onvm_nsh example = {
	.chain = 0x7ffffe, .is_reverse = true, .si = 4, .ttl = 63, .numbers = {1, 2, 0xffff}};

static void
test_layout(void)
{
	const uint8_t wanted[] = {
		0x0c, 0x00, 0x00, 0x04, 0x12, 0x34, 0x56, 0x00, /* I and P; NSH; VNI */
		0x0f, 0xc6, 0x01, 0x03, /* version 0, TTL 63, 6 words, MD type 1, Ethernet */
		0xff, 0xff, 0xfd, 0x04, /* SPI, SI */
		0x00, 0x01, 0x00, 0x02, 0xff, 0xff, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	};
	uint8_t data[ONVM_TUNNEL_BYTES];

	CHECK_EQUAL(sizeof(wanted), ONVM_TUNNEL_BYTES);
	onvm_nsh_write(data, VNI, &example);
	CHECK(memcmp(data, wanted, sizeof(wanted)) == 0);
}

static void
test_what_is_written_is_read(void)
{
	uint8_t data[ONVM_TUNNEL_BYTES];
	struct onvm_nsh got;

	onvm_nsh_write(data, VNI, &example);
	CHECK(onvm_nsh_read(data, sizeof(data), VNI, &got));
	CHECK_EQUAL(got.chain, example.chain);
	CHECK_EQUAL(got.is_reverse, example.is_reverse);
	CHECK_EQUAL(got.si, example.si);
	CHECK_EQUAL(got.ttl, example.ttl);
	CHECK_EQUAL(got.length, ONVM_TUNNEL_BYTES);
	CHECK(memcmp(got.numbers, example.numbers, sizeof(got.numbers)) == 0);
	CHECK(!onvm_nsh_read(data, sizeof(data), VNI + 1, &got));
}

static void
test_md_type_2_names_no_hosts(void)
{
	uint8_t data[ONVM_TUNNEL_BYTES];
	struct onvm_nsh got;

	onvm_nsh_write(data, VNI, &example);
	data[9] = (uint8_t)((data[9] & 0xc0) | 2); /* two words */
	data[10] = 2;
	CHECK(onvm_nsh_read(data, 16, VNI, &got));
	CHECK_EQUAL(got.length, 16);
	CHECK_EQUAL(got.numbers[0], 0);
	CHECK_EQUAL(got.si, 4);
	data[9] = (uint8_t)((data[9] & 0xc0) | 1); /* ends inside its own header */
	CHECK(!onvm_nsh_read(data, 16, VNI, &got));
	data[9] = (uint8_t)((data[9] & 0xc0) | 60); /* past the datagram */
	CHECK(!onvm_nsh_read(data, sizeof(data), VNI, &got));
}

/** Every length and 200,000 damaged headers: no byte behind the data is read (ASan). */
static void
test_damaged_headers(void)
{
	uint64_t seed = test_seed(7);
	uint32_t nb_read = 0;

	for (int i = 0; i < 200000; i++) {
		const uint32_t length = test_random(&seed) % (ONVM_TUNNEL_BYTES + 1);
		uint8_t *data = malloc(length == 0 ? 1 : length), whole[ONVM_TUNNEL_BYTES];
		struct onvm_nsh got;

		onvm_nsh_write(whole, VNI, &example);
		memcpy(data, whole, length);
		for (uint32_t k = test_random(&seed) % 3; length != 0 && k != 0; k--)
			data[test_random(&seed) % length] = (uint8_t)test_random(&seed);
		if (onvm_nsh_read(data, length, VNI, &got)) {
			CHECK(got.length <= length && got.chain < 1u << 23);
			nb_read++;
		}
		free(data);
	}
	CHECK(nb_read > 100);
}

/** A frame of 60 bytes: Ethernet, VLAN tags, an IP header with @p tos, a right checksum. */
static uint32_t
make_frame(uint8_t *frame, uint8_t ip_version, uint32_t nb_vlans, uint8_t tos)
{
	uint32_t l3 = 14 + 4 * nb_vlans;
	uint16_t checksum;

	memset(frame, 0, 80);
	for (uint32_t i = 0; i < nb_vlans; i++)
		onvm_store_be16(frame + 12 + 4 * i, i == 0 ? 0x88a8 : 0x8100);
	onvm_store_be16(frame + l3 - 2,
			ip_version == 4 ? ONVM_ETHERTYPE_IPV4 : ONVM_ETHERTYPE_IPV6);
	if (ip_version == 6) {
		onvm_store_be32(frame + l3, 6u << 28 | (uint32_t)tos << 20 | 0xabcde);
		return l3;
	}
	frame[l3] = 0x45;
	frame[l3 + 1] = tos;
	frame[l3 + 8] = 64;
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, frame + l3, 20));
	memcpy(frame + l3 + 10, &checksum, 2);
	return l3;
}

/** RFC 6040 figure 4: outgoing ECN by inner (rows) and outer; 4: dropped. */
static const uint8_t decapsulated[4][4] = {
	[ONVM_ECN_NOT_ECT] = {0, 0, 0, 4},
	[ONVM_ECN_ECT1] = {1, 1, 1, 3},
	[ONVM_ECN_ECT0] = {2, 1, 2, 3},
	[ONVM_ECN_CE] = {3, 3, 3, 3},
};

static void
test_ecn(void)
{
	uint8_t frame[80];

	for (uint8_t version = 4; version <= 6; version += 2)
		for (uint32_t nb_vlans = 0; nb_vlans <= 2; nb_vlans++)
			for (uint8_t inner = 0; inner < 4; inner++)
				for (uint8_t outer = 0; outer < 4; outer++) {
					const uint8_t dscp = 0xb8; /* expedited forwarding */
					const uint8_t wanted = decapsulated[inner][outer];
					const uint32_t l3 =
						make_frame(frame, version, nb_vlans, dscp | inner);

					CHECK_EQUAL(onvm_ecn_tos(frame, 80), dscp | inner);
					CHECK_EQUAL(onvm_ecn_decapsulate(frame, 80, outer),
						    wanted != 4);
					if (wanted == 4)
						continue;
					CHECK_EQUAL(onvm_ecn_tos(frame, 80), dscp | wanted);
					if (version == 4)
						CHECK_EQUAL(onvm_checksum_fold(
								    onvm_checksum_add(0, frame + l3,
										      20)),
							    0xffff);
				}
}

static void
test_ecn_of_what_is_no_ip(void)
{
	uint8_t frame[80] = {[12] = 0x08, [13] = 0x06};

	CHECK_EQUAL(onvm_ecn_tos(frame, 60), 0);
	CHECK(onvm_ecn_decapsulate(frame, 60, ONVM_ECN_CE));
	make_frame(frame, 4, 0, 0);
	CHECK(onvm_ecn_decapsulate(frame, 20, ONVM_ECN_CE)); /* cut short: the NFs' matter */
}

int
main(void)
{
	RUN(test_layout);
	RUN(test_what_is_written_is_read);
	RUN(test_md_type_2_names_no_hosts);
	RUN(test_damaged_headers);
	RUN(test_ecn);
	RUN(test_ecn_of_what_is_no_ip);
	return 0;
}
