/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Damaged packets for the generator's client and server; built with sanitizers.
 *
 * Plan: a client and a server talk through a line that flips, cuts and moves some packets. Each
 * packet lies in a heap block of its own, so reading or writing past a buffer is seen. Checksums
 * of damaged packets are repaired half of the time, or nothing would get past them. In the end
 * the client has sent what it should and every packet has been freed; on a clean line, every
 * connection has come to its end.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_mbuf.h>

/* Packets are heap blocks here, not of a mempool. */
#define STRIDE 2176
static long nb_living;

static void
fake_free(struct rte_mbuf *mbuf)
{
	free(mbuf->buf_addr);
	free(mbuf);
	nb_living--;
}

static void
fake_free_bulk(struct rte_mbuf **mbufs, unsigned int nb)
{
	while (nb-- > 0)
		fake_free(mbufs[nb]);
}

static int
fake_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int nb)
{
	(void)pool;
	for (unsigned int i = 0; i < nb; i++) {
		mbufs[i] = calloc(1, sizeof(**mbufs));
		mbufs[i]->buf_addr = malloc(STRIDE);
		mbufs[i]->buf_len = STRIDE;
		mbufs[i]->data_off = RTE_PKTMBUF_HEADROOM;
		nb_living++;
	}
	return 0;
}

#define rte_pktmbuf_free fake_free
#define rte_pktmbuf_free_bulk fake_free_bulk
#define rte_pktmbuf_alloc_bulk fake_alloc_bulk
#define rte_get_tsc_hz() 1000000000ull
#include "ports/generator/client.c"
#include "ports/generator/mix.c"
#include "ports/generator/packet.c"
#include "ports/generator/request.c"
#include "ports/generator/server.c"

#include "test.h"

static uint64_t fuzz_state;

static uint32_t
fuzz(uint32_t below)
{
	fuzz_state += 0x9e3779b97f4a7c15u;
	return (uint32_t)(onvm_gen_mix64(fuzz_state) % below);
}

static void
repair(struct rte_mbuf *mbuf)
{
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	struct onvm_headers headers;
	uint8_t *field;
	uint32_t l3_header;

	if (onvm_parse(data, mbuf->data_len, &headers) != ONVM_L3_OK ||
	    headers.l4_status != ONVM_L4_OK)
		return;
	l3_header = (uint32_t)headers.l4_offset - headers.l3_offset;
	if (headers.ip_version == 4) {
		memset(data + headers.l3_offset + 10, 0, 2);
		store_checksum(data + headers.l3_offset + 10,
			       onvm_checksum_add(0, data + headers.l3_offset, l3_header));
	}
	field = data + headers.l4_offset + checksum_offset(headers.protocol);
	if (checksum_offset(headers.protocol) + 2 > headers.l4_length)
		return;
	memset(field, 0, 2);
	store_checksum(field,
		       onvm_checksum_add(pseudo_sum(data + headers.l3_offset, headers.ip_version,
						    headers.protocol, headers.l4_length),
					 data + headers.l4_offset, headers.l4_length));
}

/** Cut, flip, move to the end of the buffer. */
static void
damage(struct rte_mbuf *mbuf)
{
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	uint32_t room;

	for (uint32_t n = fuzz(4); n > 0; n--)
		data[fuzz(fuzz(2) ? 80 : mbuf->data_len) % mbuf->data_len] = (uint8_t)fuzz(256);
	if (fuzz(3) == 0)
		mbuf->data_len = (uint16_t)(14 + fuzz(mbuf->data_len - 13u));
	if (fuzz(2) == 0)
		repair(mbuf);
	room = (uint32_t)STRIDE - mbuf->data_len;
	if (fuzz(3) == 0 && room > RTE_PKTMBUF_HEADROOM) {
		memmove((uint8_t *)mbuf->buf_addr + room, data, mbuf->data_len);
		mbuf->data_off = (uint16_t)room;
	}
	mbuf->pkt_len = mbuf->data_len;
}

static int
converse(uint64_t seed, uint32_t damaged_percent)
{
	const struct onvm_gen_options options = {.nb_flows = 40,
						 .count = 20000,
						 .seed = seed,
						 .ipv6_percent = 40,
						 .tcp_percent = 50,
						 .udp_percent = 30,
						 .timeout_ms = 1};
	const uint32_t room = STRIDE - RTE_PKTMBUF_HEADROOM;
	struct onvm_gen_server *server = calloc(1, sizeof(*server));
	struct onvm_gen_client *client = aligned_alloc(64, RTE_ALIGN(sizeof(*client), 64));
	struct rte_mbuf *mbufs[64];
	char error[256] = "";
	uint64_t now = 1;
	int rc = 0;

	fuzz_state = seed;
	if (onvm_gen_client_init(client, &options, room, error, sizeof(error)) != 0 ||
	    onvm_gen_server_init(server, 16384, room) != 0) {
		fprintf(stderr, "%s\n", error);
		return 1;
	}
	while (client->nb_active != 0 && now < 4000000000ull) {
		uint32_t nb = onvm_gen_client_give(client, NULL, mbufs, 1 + fuzz(64), now);

		for (uint32_t i = 0; i < nb; i++)
			if (fuzz(100) < damaged_percent)
				damage(mbufs[i]);
		onvm_gen_server_take(server, mbufs, nb);
		now += 10000;
		nb = onvm_gen_server_give(server, mbufs, 1 + fuzz(64));
		for (uint32_t i = 0; i < nb; i++)
			if (fuzz(100) < damaged_percent)
				damage(mbufs[i]);
		onvm_gen_client_take(client, mbufs, nb, now);
		if (damaged_percent != 0)
			onvm_gen_client_expire(client, 8, now);
	}
	onvm_gen_server_free(server);
	if (nb_living != 0 || client->nb_active != 0 || client->stats.sent != options.count ||
	    client->stats.opened != client->stats.completed + client->stats.failed ||
	    (damaged_percent == 0 && (client->stats.failed != 0 || client->stats.unexpected != 0 ||
				      client->stats.bad_checksum != 0))) {
		fprintf(stderr,
			"seed %lu, %u %% damaged: %ld not freed, sent %lu, failed %lu of %lu\n",
			(unsigned long)seed, damaged_percent, nb_living,
			(unsigned long)client->stats.sent, (unsigned long)client->stats.failed,
			(unsigned long)client->stats.opened);
		rc = 1;
	}
	onvm_gen_client_free(client);
	free(client);
	free(server);
	return rc;
}

int
main(void)
{
	int rc = 0;

	onvm_gen_pattern_init();
	for (uint64_t seed = 1; seed <= 6; seed++)
		rc |= converse(test_seed(seed), 0) | converse(test_seed(seed), 10) |
		      converse(test_seed(seed), 60);
	puts(rc == 0 ? "ok" : "failed");
	return rc;
}
