/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port "null": makes packets, and takes packets and drops them silently.
 *
 * The packets are UDP over IPv4. Without `nb_flows` they come from 256 templates, of which every
 * sixteenth goes to port 9999: the traffic of benchmark work "w2". With `nb_flows` each packet
 * gets the addresses of the next flow.
 */

#include "ports/kinds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_cycles.h>

#include <onvm/checksum.h>

#define NB_TEMPLATES 256
#define TEMPLATE_BYTES 64

struct null_queue {
	uint32_t next;
	uint32_t random;
	struct onvm_pace pace;
} __rte_cache_aligned;

struct null_port {
	uint32_t size;
	uint32_t nb_flows;
	bool is_random;
	uint32_t flow_sum; /**< of template 0's IPv4 header, without checksum and source */
	struct null_queue *queues;
	uint8_t templates[NB_TEMPLATES][TEMPLATE_BYTES] __rte_aligned(64);
};

/** Ethernet, IPv4 10.0.0.x -> 10.0.0.2, UDP 12288+x -> 5000+x or 9999, zeros. */
static void
make_template(uint8_t *packet, uint32_t index, uint32_t size)
{
	uint16_t checksum;

	memset(packet, 0, TEMPLATE_BYTES);
	for (int i = 0; i < 12; i++)
		packet[i] = (uint8_t)(2 + i);
	packet[0] = packet[6] = 2;
	packet[12] = 0x08;
	packet[14] = 0x45;
	onvm_store_be16(packet + 16, (uint16_t)(size - 14));
	packet[22] = 64;
	packet[23] = 17;
	onvm_store_be32(packet + 26, 0x0a000000u | (1 + index));
	onvm_store_be32(packet + 30, 0x0a000002u);
	onvm_store_be16(packet + 34, (uint16_t)(0x3000 + index));
	onvm_store_be16(packet + 36, index % 16 == 7 ? 9999 : (uint16_t)(5000 + index));
	onvm_store_be16(packet + 38, (uint16_t)(size - 34));
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, packet + 14, 20));
	memcpy(packet + 24, &checksum, 2);
}

/**
 * Give a copy of template 0 the addresses of flow @p flow: 2^16 sources, 10.1.x.x, times 2^16
 * source ports. @p sum is of its IPv4 header without checksum and source.
 */
static inline void
set_flow(uint8_t *packet, uint32_t flow, uint32_t sum)
{
	const uint32_t source = 0x0a010000u | flow >> 16;
	uint16_t checksum;

	onvm_store_be32(packet + 26, source);
	onvm_store_be16(packet + 34, (uint16_t)flow);
	/* The sum is of words in memory order (RFC 1071 section 2 B). */
	sum += (uint32_t)rte_cpu_to_be_16((uint16_t)(source >> 16)) +
	       rte_cpu_to_be_16((uint16_t)source);
	checksum = (uint16_t)~onvm_checksum_fold(sum);
	memcpy(packet + 24, &checksum, 2);
}

static uint32_t
sum_without_source(const uint8_t *packet)
{
	uint8_t header[20];

	memcpy(header, packet + 14, sizeof(header));
	memset(header + 10, 0, 6);
	return onvm_checksum_fold(onvm_checksum_add(0, header, sizeof(header)));
}

static inline uint32_t
next_flow(const struct null_port *null, struct null_queue *queue)
{
	if (null->is_random) {
		/* xorshift32: every flow equally often, no two runs of neighbours. */
		queue->random ^= queue->random << 13;
		queue->random ^= queue->random >> 17;
		queue->random ^= queue->random << 5;
		return (uint32_t)(((uint64_t)queue->random * null->nb_flows) >> 32);
	}
	if (queue->next >= null->nb_flows)
		queue->next = 0;
	return queue->next++;
}

/** Where a new packet begins: not where the last one in this buffer did, nor before the first. */
static inline uint8_t *
packet_start(const struct rte_mbuf *mbuf)
{
	return (uint8_t *)mbuf->buf_addr + RTE_PKTMBUF_HEADROOM;
}

static uint16_t
null_rx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb,
	struct onvm_rx_result *result)
{
	struct null_port *null = port->priv;
	struct null_queue *queue = &null->queues[index];

	RTE_SET_USED(result);
	if (queue->pace.rate_pps != 0 || queue->pace.limit != UINT64_MAX) {
		nb = onvm_pace_due(&queue->pace, rte_rdtsc(), nb);
		if (nb == 0) {
			if (queue->pace.nb_sent >= queue->pace.limit)
				__atomic_store_n(&port->is_finished, 1, __ATOMIC_RELEASE);
			return 0;
		}
	}
	/* Free mbufs have one reference and one segment: only what packets change is set again,
	 * and so the second cache line of an mbuf is never touched. */
	if (rte_mempool_get_bulk(port->pools[index], (void **)mbufs, nb) != 0)
		return 0;
	queue->pace.nb_sent += nb;
	/* An NF on another core wrote these lines last: fetch them side by side. */
	for (uint16_t i = 0; i < nb; i++)
		__builtin_prefetch(packet_start(mbufs[i]), 1);
	for (uint16_t i = 0; i < nb; i++) {
		uint8_t *packet = packet_start(mbufs[i]);

		mbufs[i]->data_off = RTE_PKTMBUF_HEADROOM;
		mbufs[i]->ol_flags = 0;
		mbufs[i]->data_len = (uint16_t)null->size;
		mbufs[i]->pkt_len = null->size;
		if (null->nb_flows == 0) {
			memcpy(packet, null->templates[queue->next++ & 255], TEMPLATE_BYTES);
		} else {
			memcpy(packet, null->templates[0], TEMPLATE_BYTES);
			set_flow(packet, next_flow(null, queue), null->flow_sum);
		}
	}
	return nb;
}

static uint16_t
null_tx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	RTE_SET_USED(queue);
	/* Own mbufs have one reference and one segment: straight back to the pool. */
	onvm_packets_free(port->memory, mbufs, nb);
	return nb;
}

static uint64_t
null_next_due(struct onvm_port *port, uint16_t index)
{
	const struct null_port *null = port->priv;

	return onvm_pace_next(&null->queues[index].pace);
}

static void
null_close(struct onvm_port *port)
{
	struct null_port *null = port->priv;

	free(null->queues);
	free(null);
}

static const struct onvm_port_ops null_ops = {
	.rx_burst = null_rx,
	.tx_burst = null_tx,
	.next_due = null_next_due,
	.close = null_close,
};

int
onvm_port_null_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		    char *error, size_t error_size)
{
	const struct onvm_null_options *options = kind_options;
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	const uint32_t nb_queues = options->nb_queues == 0 ? 1 : options->nb_queues;
	struct null_port *null;

	if (options->size < TEMPLATE_BYTES || options->size > room) {
		snprintf(error, error_size, "size %u: expected %u to %u bytes", options->size,
			 TEMPLATE_BYTES, room);
		return -EINVAL;
	}
	null = aligned_alloc(64, sizeof(*null));
	if (null == NULL)
		return -ENOMEM;
	memset(null, 0, sizeof(*null));
	null->queues = aligned_alloc(64, nb_queues * sizeof(*null->queues));
	if (null->queues == NULL) {
		free(null);
		return -ENOMEM;
	}
	null->size = options->size;
	null->nb_flows = options->nb_flows;
	null->is_random = options->is_random;
	for (uint32_t i = 0; i < NB_TEMPLATES; i++)
		make_template(null->templates[i], i, options->size);
	null->flow_sum = sum_without_source(null->templates[0]);
	for (uint32_t i = 0; i < nb_queues; i++)
		null->queues[i] = (struct null_queue){
			.random = 2463534242u + i,
			.pace =
				{
					.rate_pps = options->rate_pps / nb_queues,
					.limit = options->count == 0 ?
							 UINT64_MAX :
							 options->count / nb_queues +
								 (i < options->count % nb_queues),
					.hz = rte_get_tsc_hz(),
				},
		};
	port->ops = &null_ops;
	port->priv = null;
	port->nb_queues = (uint16_t)nb_queues;
	port->can_wait = options->rate_pps == 0;
	port->is_finished = !options->is_source;
	return 0;
}
