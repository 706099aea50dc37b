/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/vnet.h"

#include <string.h>

#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_hash_crc.h>

#include <onvm/checksum.h>

/** Turns of a busy worker after which an empty file is read again, at most. */
#define SKIPS_MAX 16
#define SCTP_FIELD 8 /* of the checksum, from the transport header */

uint16_t
onvm_vnet_prepare(struct onvm_vnet_queue *queue, uint16_t nb,
		  const struct onvm_packet_memory *memory, struct rte_mempool *pool)
{
	const uint32_t room = memory->stride - RTE_PKTMBUF_HEADROOM;

	nb = RTE_MIN(nb, ONVM_VNET_BURST);
	for (uint16_t i = 0; i < nb; i++) {
		struct onvm_vnet_slot *slot = &queue->slots[i];

		if (likely(slot->small != NULL && slot->large != NULL))
			continue;
		if (slot->small == NULL)
			slot->small = rte_pktmbuf_alloc(pool);
		if (slot->large == NULL)
			slot->large = rte_pktmbuf_alloc(memory->large.pool);
		if (slot->small == NULL || slot->large == NULL)
			return i;
		slot->parts[0] = (struct iovec){&slot->header, sizeof(slot->header)};
		slot->parts[1] = (struct iovec){rte_pktmbuf_mtod(slot->small, void *), room};
		slot->parts[2] = (struct iovec){rte_pktmbuf_mtod(slot->large, uint8_t *) + room,
						rte_pktmbuf_tailroom(slot->large) - room};
	}
	return nb;
}

/** The buffer of a slot that holds its frame of @p length bytes. */
static struct rte_mbuf *
take_buffer(struct onvm_vnet_slot *slot, uint32_t length, const struct onvm_packet_memory *memory)
{
	const uint32_t room = memory->stride - RTE_PKTMBUF_HEADROOM;
	struct rte_mbuf *mbuf;

	if (likely(length <= room)) {
		mbuf = slot->small;
		slot->small = NULL;
	} else {
		mbuf = slot->large;
		slot->large = NULL;
		memcpy(rte_pktmbuf_mtod(mbuf, void *), slot->parts[1].iov_base, room);
	}
	mbuf->data_len = (uint16_t)length;
	mbuf->pkt_len = length;
	return mbuf;
}

struct rte_mbuf *
onvm_vnet_take(struct onvm_vnet_queue *queue, uint16_t index, ssize_t length,
	       const struct onvm_packet_memory *memory)
{
	struct onvm_vnet_slot *slot = &queue->slots[index];
	struct rte_mbuf *mbuf;

	if (unlikely(length < (ssize_t)sizeof(slot->header) + RTE_ETHER_HDR_LEN)) {
		onvm_vnet_count_bad(queue);
		return NULL;
	}
	mbuf = take_buffer(slot, (uint32_t)length - (uint32_t)sizeof(slot->header), memory);
	if (likely(onvm_vnet_read(&slot->header, mbuf)))
		return mbuf;
	onvm_vnet_count_bad(queue);
	rte_pktmbuf_free(mbuf);
	return NULL;
}

uint16_t
onvm_vnet_receive(struct onvm_vnet_queue *queue, onvm_vnet_reader read_frames,
		  struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb,
		  struct onvm_rx_result *result)
{
	uint16_t nb_rx;

	if (unlikely(!onvm_cutter_is_done(&queue->cutter)))
		return onvm_cutter_next(&queue->cutter, port->memory, port->pools[index], mbufs, nb,
					&result->nb_added);
	if (queue->nb_skips != 0) {
		queue->nb_skips--;
		return 0;
	}
	nb_rx = read_frames(port, index, mbufs, nb);
	if (nb_rx == 0) {
		queue->skips = RTE_MIN(queue->skips * 2 + 1, (uint32_t)SKIPS_MAX);
		queue->nb_skips = queue->skips;
		return 0;
	}
	queue->skips = 0;
	if (likely(!__atomic_load_n(&port->is_wire_sized, __ATOMIC_RELAXED)))
		return nb_rx;
	memcpy(queue->frames, mbufs, nb_rx * sizeof(*mbufs));
	onvm_cutter_begin(&queue->cutter, queue->frames, nb_rx, false);
	return onvm_cutter_next(&queue->cutter, port->memory, port->pools[index], mbufs, nb,
				&result->nb_added);
}

uint16_t
onvm_vnet_posted(const struct onvm_vnet_queue *queue)
{
	uint16_t nb_posted = 0;

	for (uint16_t i = 0; i < ONVM_VNET_BURST; i++)
		nb_posted += __atomic_load_n(&queue->slots[i].small, __ATOMIC_RELAXED) != NULL;
	return nb_posted;
}

uint64_t
onvm_vnet_bad(const struct onvm_vnet_queue *queue)
{
	return __atomic_load_n(&queue->nb_bad, __ATOMIC_RELAXED);
}

void
onvm_vnet_count_bad(struct onvm_vnet_queue *queue)
{
	__atomic_store_n(&queue->nb_bad, queue->nb_bad + 1, __ATOMIC_RELAXED);
}

void
onvm_vnet_free(struct onvm_vnet_queue *queue)
{
	for (uint16_t i = 0; i < ONVM_VNET_BURST; i++) {
		struct onvm_vnet_slot *slot = &queue->slots[i];

		rte_pktmbuf_free(slot->small);
		rte_pktmbuf_free(slot->large);
		slot->small = slot->large = NULL;
	}
	onvm_cutter_free(&queue->cutter);
}

void
onvm_vnet_insert_vlan(struct rte_mbuf *mbuf, uint16_t ethertype, uint16_t tci)
{
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *) - 4;

	memmove(data, data + 4, 12);
	onvm_store_be16(data + 12, ethertype);
	onvm_store_be16(data + 14, tci);
	mbuf->data_off = (uint16_t)(mbuf->data_off - 4);
	mbuf->data_len = (uint16_t)(mbuf->data_len + 4);
	mbuf->pkt_len = mbuf->data_len;
}

/** Make a checksum where the header says, over all that follows; its field has the pseudo-header's. */
static void
complete(uint8_t *data, uint32_t length, uint32_t start, uint32_t field)
{
	uint16_t checksum =
		(uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, data + start, length - start));

	memcpy(data + start + field, &checksum, sizeof(checksum));
}

/** The checksum of SCTP is a CRC32c over the packet with 0 in the field (RFC 9260 section 6.8). */
static void
complete_sctp(uint8_t *l4, uint32_t length)
{
	uint32_t checksum = 0, crc = UINT32_MAX, word, i;

	memcpy(l4 + SCTP_FIELD, &checksum, sizeof(checksum));
	for (i = 0; i + sizeof(word) <= length; i += sizeof(word)) { /* at any address */
		memcpy(&word, l4 + i, sizeof(word));
		crc = rte_hash_crc_4byte(word, crc);
	}
	for (; i < length; i++)
		crc = rte_hash_crc_1byte(l4[i], crc);
	checksum = rte_cpu_to_le_32(~crc);
	memcpy(l4 + SCTP_FIELD, &checksum, sizeof(checksum));
}

bool
onvm_vnet_read(const struct virtio_net_hdr *header, struct rte_mbuf *mbuf)
{
	const uint32_t length = mbuf->data_len, start = header->csum_start;
	const uint32_t field = header->csum_offset;
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	const uint8_t gso = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	struct onvm_headers headers;
	bool is_tcp;

	if (likely((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0))
		return gso == VIRTIO_NET_HDR_GSO_NONE;
	if (start + field + 2 > length)
		return false;
	(void)onvm_parse(data, length, &headers);
	is_tcp = headers.protocol == ONVM_PROTO_TCP;
	if (headers.l3_status == ONVM_L3_OK && headers.l4_status == ONVM_L4_OK &&
	    !onvm_headers_is_fragment(&headers) && headers.l4_offset == start &&
	    field == (is_tcp ? 16u : 6u) && (is_tcp || headers.protocol == ONVM_PROTO_UDP)) {
		mbuf->ol_flags |= is_tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
		if (gso == VIRTIO_NET_HDR_GSO_NONE)
			return true;
		if (header->gso_size == 0 || (gso == ONVM_VNET_GSO_UDP_L4) == is_tcp ||
		    (gso != ONVM_VNET_GSO_UDP_L4 && gso != VIRTIO_NET_HDR_GSO_TCPV4 &&
		     gso != VIRTIO_NET_HDR_GSO_TCPV6))
			return false;
		mbuf->ol_flags |= is_tcp ? RTE_MBUF_F_TX_TCP_SEG : RTE_MBUF_F_TX_UDP_SEG;
		mbuf->tso_segsz = header->gso_size;
		return true;
	}
	/* Of another protocol, or in a tunnel. */
	if (gso != VIRTIO_NET_HDR_GSO_NONE)
		return false;
	if (headers.protocol == ONVM_PROTO_SCTP && headers.l4_offset == start &&
	    field == SCTP_FIELD && headers.l4_status == ONVM_L4_OK)
		complete_sctp(data + start, headers.l4_length);
	else
		complete(data, length, start, field);
	return true;
}

uint32_t
onvm_vnet_write(struct rte_mbuf *mbuf, struct virtio_net_hdr *header)
{
	struct onvm_offload offload;
	uint16_t sum;

	memset(header, 0, sizeof(*header));
	if (likely(!onvm_offload_has(mbuf)))
		return mbuf->data_len;
	onvm_offload_read(mbuf, &offload);
	if (!offload.is_partial)
		return mbuf->data_len;
	sum = onvm_checksum_fold(offload.pseudo);
	memcpy(rte_pktmbuf_mtod(mbuf, uint8_t *) + offload.headers.l4_offset + offload.field, &sum,
	       sizeof(sum));
	header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->csum_start = offload.headers.l4_offset;
	header->csum_offset = offload.field;
	if (!offload.is_merged)
		return mbuf->data_len;
	header->gso_size = offload.segment;
	header->hdr_len = offload.header;
	if (offload.headers.protocol == ONVM_PROTO_UDP)
		header->gso_type = ONVM_VNET_GSO_UDP_L4;
	else
		header->gso_type =
			(uint8_t)((offload.headers.ip_version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 :
								     VIRTIO_NET_HDR_GSO_TCPV6) |
				  (offload.headers.tcp_flags & 0x80 ? VIRTIO_NET_HDR_GSO_ECN : 0));
	return (uint32_t)offload.header + offload.segment;
}
