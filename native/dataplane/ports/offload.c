/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/offload.h"

#include <string.h>

#include <onvm/checksum.h>

#define TCP_FIELD 16 /* of the checksum, from the transport header */
#define UDP_FIELD 6

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80

/** Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1). */
static uint64_t
pseudo_sum(const uint8_t *data, const struct onvm_headers *headers, uint32_t l4_length)
{
	const uint8_t *ip = data + headers->l3_offset;
	const uint32_t tail[2] = {htobe32(l4_length), htobe32(headers->protocol)};
	const uint64_t sum = onvm_checksum_add(0, (const uint8_t *)tail, sizeof(tail));

	return headers->ip_version == 4 ? onvm_checksum_add(sum, ip + 12, 8) :
					  onvm_checksum_add(sum, ip + 8, 32);
}

void
onvm_offload_read(const struct rte_mbuf *mbuf, struct onvm_offload *offload)
{
	const uint8_t *data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	struct onvm_headers *headers = &offload->headers;
	uint32_t l4_header;

	memset(offload, 0, sizeof(*offload));
	if (onvm_parse(data, mbuf->data_len, headers) != ONVM_L3_OK ||
	    headers->l4_status != ONVM_L4_OK || onvm_headers_is_fragment(headers))
		return;
	if (headers->protocol == ONVM_PROTO_TCP) {
		offload->field = TCP_FIELD;
		l4_header = (data[headers->l4_offset + 12] >> 4) * 4u;
	} else if (headers->protocol == ONVM_PROTO_UDP) {
		offload->field = UDP_FIELD;
		l4_header = 8;
	} else {
		return;
	}
	offload->is_partial = true;
	offload->pseudo = pseudo_sum(data, headers, headers->l4_length);
	offload->header = (uint16_t)(headers->l4_offset + l4_header);
	offload->end = headers->l4_offset + headers->l4_length;
	offload->segment = mbuf->tso_segsz;
	offload->is_merged = (mbuf->ol_flags &
			      (headers->protocol == ONVM_PROTO_TCP ? RTE_MBUF_F_TX_TCP_SEG :
								     RTE_MBUF_F_TX_UDP_SEG)) != 0 &&
			     offload->segment != 0 &&
			     offload->end - offload->header > offload->segment;
}

/** Write a transport checksum over @p length bytes from @p l4 on. */
static void
write_checksum(uint8_t *l4, uint32_t length, const struct onvm_offload *offload, uint64_t pseudo)
{
	uint16_t checksum = 0;

	memcpy(l4 + offload->field, &checksum, sizeof(checksum));
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(pseudo, l4, length));
	/* No UDP checksum is 0: that means none (RFC 768). */
	if (checksum == 0 && offload->field == UDP_FIELD)
		checksum = 0xffff;
	memcpy(l4 + offload->field, &checksum, sizeof(checksum));
}

void
onvm_offload_complete(struct rte_mbuf *mbuf, const struct onvm_offload *offload)
{
	mbuf->ol_flags &= ~ONVM_OFFLOAD_ANY;
	if (offload->is_partial)
		write_checksum(rte_pktmbuf_mtod(mbuf, uint8_t *) + offload->headers.l4_offset,
			       offload->headers.l4_length, offload, offload->pseudo);
}

/** Let the headers of a cut packet say what is in it. */
static void
write_headers(const struct onvm_segmenter *segmenter, uint8_t *data, uint32_t nb_bytes)
{
	const struct onvm_offload *offload = &segmenter->offload;
	const struct onvm_headers *headers = &offload->headers;
	const uint32_t total = offload->header + nb_bytes;
	const uint32_t l4_length = total - headers->l4_offset;
	uint8_t *ip = data + headers->l3_offset, *l4 = data + headers->l4_offset;

	if (headers->ip_version == 4) {
		const uint16_t none = 0;
		uint16_t checksum;

		onvm_store_be16(ip + 2, (uint16_t)(total - headers->l3_offset));
		onvm_store_be16(ip + 4, (uint16_t)(onvm_load_be16(ip + 4) + segmenter->nb_made));
		memcpy(ip + 10, &none, sizeof(none));
		checksum = (uint16_t)~onvm_checksum_fold(
			onvm_checksum_add(0, ip,
					  (uint32_t)(headers->l4_offset - headers->l3_offset)));
		memcpy(ip + 10, &checksum, sizeof(checksum));
	} else {
		onvm_store_be16(ip + 4, (uint16_t)(total - headers->l3_offset - 40));
	}
	if (headers->protocol == ONVM_PROTO_UDP) {
		onvm_store_be16(l4 + 4, (uint16_t)l4_length);
	} else {
		onvm_store_be32(l4 + 4, onvm_load_be32(l4 + 4) + segmenter->next - offload->header);
		if (segmenter->next + nb_bytes != offload->end)
			l4[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
		if (segmenter->nb_made != 0) /* RFC 3168 section 6.1.2: once */
			l4[13] &= (uint8_t)~TCP_CWR;
	}
	write_checksum(l4, l4_length, offload, pseudo_sum(data, headers, l4_length));
}

uint16_t
onvm_segmenter_next(struct onvm_segmenter *segmenter, const struct onvm_packet_memory *memory,
		    struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct onvm_offload *offload = &segmenter->offload;
	const uint8_t *whole = rte_pktmbuf_mtod(segmenter->whole, const uint8_t *);
	uint16_t nb_made = 0;

	if ((uint32_t)offload->header + offload->segment > memory->stride - RTE_PKTMBUF_HEADROOM)
		pool = memory->large.pool;

	while (nb_made < nb && segmenter->next < offload->end) {
		const uint32_t nb_bytes =
			RTE_MIN((uint32_t)offload->segment, offload->end - segmenter->next);
		struct rte_mbuf *mbuf = pool == NULL ? NULL : rte_pktmbuf_alloc(pool);
		uint8_t *data;

		if (mbuf == NULL)
			return nb_made;
		ONVM_ASSERT(offload->header + nb_bytes <= rte_pktmbuf_tailroom(mbuf));
		data = rte_pktmbuf_mtod(mbuf, uint8_t *);
		memcpy(data, whole, offload->header);
		memcpy(data + offload->header, whole + segmenter->next, nb_bytes);
		mbuf->data_len = (uint16_t)(offload->header + nb_bytes);
		mbuf->pkt_len = mbuf->data_len;
		mbuf->hash = segmenter->whole->hash; /* of a packet to a peer, its way */
		write_headers(segmenter, data, nb_bytes);
		segmenter->next += nb_bytes;
		segmenter->nb_made++;
		mbufs[nb_made++] = mbuf;
	}
	if (segmenter->next == offload->end) {
		rte_pktmbuf_free(segmenter->whole);
		segmenter->whole = NULL;
	}
	return nb_made;
}

/** The next pieces of the packet that is being cut. */
static uint16_t
next_pieces(struct onvm_cutter *cutter, const struct onvm_packet_memory *memory,
	    struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb, uint32_t *nb_added)
{
	const bool is_first = !onvm_cutter_is_within(cutter);
	uint16_t nb_made;

	if (cutter->segmenter.whole != NULL)
		nb_made = onvm_segmenter_next(&cutter->segmenter, memory, pool, mbufs, nb);
	else
		nb_made = onvm_fragmenter_next(&cutter->fragmenter, memory, pool, mbufs, nb);
	if (nb_made != 0)
		*nb_added += nb_made - (is_first ? 1u : 0u);
	return nb_made;
}

/** Begin to cut a packet, or do what else is left to do for it; false: it is complete. */
static bool
begin(struct onvm_cutter *cutter, struct rte_mbuf *mbuf)
{
	struct onvm_offload offload;

	if ((mbuf->ol_flags & ONVM_OFFLOAD_FRAGMENTED) != 0)
		return onvm_fragmenter_begin(&cutter->fragmenter, mbuf);
	if (cutter->keeps_offloads)
		return false;
	onvm_offload_read(mbuf, &offload);
	if (offload.is_merged) {
		onvm_segmenter_begin(&cutter->segmenter, mbuf, &offload);
		return true;
	}
	onvm_offload_complete(mbuf, &offload);
	return false;
}

uint16_t
onvm_cutter_next(struct onvm_cutter *cutter, const struct onvm_packet_memory *memory,
		 struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb, uint32_t *nb_added)
{
	uint16_t nb_out = 0;

	while (nb_out < nb) {
		struct rte_mbuf *mbuf;

		if (cutter->segmenter.whole != NULL || cutter->fragmenter.whole != NULL) {
			const uint16_t nb_made = next_pieces(cutter, memory, pool, mbufs + nb_out,
							     (uint16_t)(nb - nb_out), nb_added);

			if (nb_made == 0)
				return nb_out;
			nb_out = (uint16_t)(nb_out + nb_made);
			continue;
		}
		if (cutter->next == cutter->nb)
			return nb_out;
		mbuf = cutter->mbufs[cutter->next++];
		if (!onvm_offload_has(mbuf) || !begin(cutter, mbuf))
			mbufs[nb_out++] = mbuf;
	}
	return nb_out;
}

uint32_t
onvm_cutter_free(struct onvm_cutter *cutter)
{
	uint32_t nb = (cutter->segmenter.whole != NULL) + (cutter->fragmenter.whole != NULL);

	rte_pktmbuf_free(cutter->segmenter.whole);
	rte_pktmbuf_free(cutter->fragmenter.whole);
	cutter->segmenter.whole = cutter->fragmenter.whole = NULL;
	for (; cutter->next < cutter->nb; cutter->next++, nb++)
		rte_pktmbuf_free(cutter->mbufs[cutter->next]);
	return nb;
}
