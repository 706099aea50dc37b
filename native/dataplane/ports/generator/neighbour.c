/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/generator/neighbour.h"

#include <string.h>

#include <onvm/checksum.h>
#include <onvm/parse.h>

#define MAC_BYTES 6
#define ARP_BYTES 42
#define ETHERTYPE_ARP 0x0806
/* Of a solicitation with an option for its sender's MAC address. */
#define SOLICITATION_BYTES 86
#define ICMP6 54
#define TARGET 62
#define OPTION 78

/* That from which clients send (request.c), and to which answers of servers go. */
static const uint8_t own_mac[MAC_BYTES] = {2, 0, 0, 0, 0, 1};

static enum onvm_gen_neighbour
answer_arp(uint8_t *data, uint32_t length)
{
	uint8_t asker[MAC_BYTES + 4];

	if (length < ARP_BYTES || onvm_load_be16(data + 20) != 1 ||
	    onvm_load_be32(data + 28) == 0 || memcmp(data + 28, data + 38, 4) == 0)
		return ONVM_GEN_HEARD;
	memcpy(asker, data + 22, sizeof(asker));
	memcpy(data, data + 6, MAC_BYTES);
	memcpy(data + 6, own_mac, MAC_BYTES);
	onvm_store_be16(data + 20, 2);
	memcpy(data + 22, own_mac, MAC_BYTES);
	memcpy(data + 28, data + 38, 4);
	memcpy(data + 32, asker, sizeof(asker));
	return ONVM_GEN_ANSWERED;
}

static enum onvm_gen_neighbour
answer_solicitation(uint8_t *data, uint32_t length)
{
	static const uint8_t unspecified[16];
	uint8_t pseudo[8] = {0, 0, 0, SOLICITATION_BYTES - ICMP6, 0, 0, 0, 58};
	uint64_t sum;
	uint16_t folded;

	if (length < SOLICITATION_BYTES || data[ICMP6] != 135 ||
	    memcmp(data + 22, unspecified, sizeof(unspecified)) == 0)
		return ONVM_GEN_HEARD;
	memcpy(data, data + 6, MAC_BYTES);
	memcpy(data + 6, own_mac, MAC_BYTES);
	memcpy(data + 38, data + 22, 16);
	memcpy(data + 22, data + TARGET, 16);
	data[ICMP6] = 136;
	memset(data + ICMP6 + 2, 0, 6);
	data[ICMP6 + 4] = 0x60; /* solicited, override */
	data[OPTION] = 2;
	memcpy(data + OPTION + 2, own_mac, MAC_BYTES);
	sum = onvm_checksum_add(onvm_checksum_add(0, data + 22, 32), pseudo, sizeof(pseudo));
	folded = (uint16_t)~onvm_checksum_fold(
		onvm_checksum_add(sum, data + ICMP6, SOLICITATION_BYTES - ICMP6));
	memcpy(data + ICMP6 + 2, &folded, sizeof(folded));
	return ONVM_GEN_ANSWERED;
}

enum onvm_gen_neighbour
onvm_gen_neighbour_answer(struct rte_mbuf *mbuf)
{
	uint8_t *const data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	const uint32_t length = mbuf->data_len;

	if (length < 14)
		return ONVM_GEN_TRAFFIC;
	if (onvm_load_be16(data + 12) == ETHERTYPE_ARP)
		return answer_arp(data, length);
	if (onvm_load_be16(data + 12) == ONVM_ETHERTYPE_IPV6 && length > ICMP6 &&
	    data[20] == ONVM_PROTO_ICMPV6 && data[ICMP6] >= 133 && data[ICMP6] <= 137)
		return answer_solicitation(data, length);
	return ONVM_GEN_TRAFFIC;
}
