/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/capture.h"

#include <stdlib.h>
#include <string.h>

#include <pcap/pcap.h>
#include <rte_common.h>
#include <rte_cycles.h>

#define RING_BYTES_MIN (256u << 10)

/* ---- the worker's side ---- */

/** Space for @p nb_bytes in one piece, or NULL; a gap at the ring's end is skipped. */
static uint8_t *
reserve_bytes(struct onvm_capture_ring *ring, uint64_t nb_bytes, uint64_t *head)
{
	/* C1: pairs with the release store C2 in onvm_capture_next(): bytes before it were read. */
	const uint64_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	const uint64_t offset = ring->head & (ring->size - 1);
	const uint64_t gap = ring->size - offset < nb_bytes ? ring->size - offset : 0;

	*head = ring->head;
	if (*head - tail + gap + nb_bytes > ring->size)
		return NULL;
	if (gap != 0) { /* whole units: it holds a record that says so */
		memset(ring->bytes + offset, ONVM_CAPTURE_SKIP, sizeof(struct onvm_capture_record));
		*head += gap;
	}
	return ring->bytes + (*head & (ring->size - 1));
}

/** A packet at a point. */
struct sight {
	const uint8_t *data;
	uint32_t length;
	uint32_t buffer; /**< UINT32_MAX: not in packet memory */
	uint16_t destination;
	uint8_t verdict_stage;
};

static bool
is_chosen(const struct onvm_capture *capture, const struct sight *sight)
{
	return capture->filter == NULL || bpf_filter(capture->filter->bf_insns, sight->data,
						     sight->length, sight->length) != 0;
}

/** Number of a followed packet; a packet that comes in gets one if it is chosen. */
static uint32_t
follow(struct onvm_capture *capture, enum onvm_capture_kind kind, const struct sight *sight)
{
	uint32_t *number;

	if (sight->buffer >= capture->nb_numbers)
		return 0;
	number = &capture->numbers[sight->buffer];
	if (kind != ONVM_CAPTURE_PORT_IN) {
		const uint32_t known = *number;

		if (kind == ONVM_CAPTURE_PORT_OUT)
			*number = 0;
		return known;
	}
	*number = 0; /* the buffer holds another packet now */
	if (__atomic_load_n(&capture->nb_followed, __ATOMIC_RELAXED) < capture->nb_followed_max &&
	    is_chosen(capture, sight)) {
		const uint32_t next =
			__atomic_add_fetch(&capture->nb_followed, 1, __ATOMIC_RELAXED);

		*number = next <= capture->nb_followed_max ? next : 0;
	}
	return *number;
}

static void
copy(struct onvm_capture *capture, struct onvm_capture_ring *ring, uint8_t point,
     enum onvm_capture_kind kind, uint64_t now, const struct sight *sight)
{
	const uint32_t captured = RTE_MIN(sight->length, capture->snap_length);
	const uint64_t nb_bytes =
		RTE_ALIGN(sizeof(struct onvm_capture_record) + captured, ONVM_CAPTURE_UNIT);
	struct onvm_capture_record *record;
	uint32_t number = 0;
	uint64_t head;

	if (capture->numbers != NULL) {
		number = follow(capture, kind, sight);
		if (number == 0)
			return;
	} else if (!is_chosen(capture, sight)) {
		return;
	}
	if (__atomic_load_n(&capture->nb_taken, __ATOMIC_RELAXED) >= capture->limit)
		return;
	record = (struct onvm_capture_record *)reserve_bytes(ring, nb_bytes, &head);
	if (record == NULL) {
		ring->nb_overflow++;
		return;
	}
	if (__atomic_fetch_add(&capture->nb_taken, 1, __ATOMIC_RELAXED) >= capture->limit)
		return; /* another worker took the last one; nothing has been published */
	*record = (struct onvm_capture_record){
		.tsc = now,
		.length = sight->length,
		.captured = (uint16_t)captured,
		.point = point,
		.is_outbound = kind == ONVM_CAPTURE_PORT_OUT || kind == ONVM_CAPTURE_FROM_HOST,
		.number = number,
		.destination = sight->destination,
		.verdict_stage = sight->verdict_stage,
	};
	memcpy(record + 1, sight->data, captured);
	ring->nb_captured++;
	/* C3: pairs with the acquire load C4 in peek_ring(): the record comes before the head. */
	__atomic_store_n(&ring->head, head + nb_bytes, __ATOMIC_RELEASE);
}

/** Next point of @p capture from @p from on that is @p id seen as @p kind; nb_points: none. */
static uint32_t
find_point(const struct onvm_capture *capture, uint32_t from, uint16_t id,
	   enum onvm_capture_kind kind)
{
	while (from < capture->nb_points &&
	       (capture->points[from].id != id || (capture->points[from].kinds & kind) == 0))
		from++;
	return from;
}

void
onvm_capture_port(struct onvm_captures *captures, uint32_t worker,
		  const struct onvm_packet_memory *memory, uint16_t port,
		  enum onvm_capture_kind kind, struct rte_mbuf *const *mbufs, uint32_t nb)
{
	const uint64_t now = rte_rdtsc();

	for (uint32_t c = 0; c < ONVM_CAPTURES_MAX; c++) {
		/* P2: pairs with the release store P1 in onvm_dp_capture_start(). */
		struct onvm_capture *capture =
			__atomic_load_n(&captures->list[c], __ATOMIC_ACQUIRE);
		const uint32_t point = capture == NULL ? 0 : find_point(capture, 0, port, kind);

		if (capture == NULL || point == capture->nb_points)
			continue;
		for (uint32_t i = 0; i < nb; i++) {
			const struct sight sight = {
				.data = rte_pktmbuf_mtod(mbufs[i], const uint8_t *),
				.length = mbufs[i]->data_len,
				.buffer = onvm_buffer_index(memory, mbufs[i]),
				.verdict_stage = ONVM_CAPTURE_NO_VERDICT,
			};

			copy(capture, &capture->rings[worker], (uint8_t)point, kind, now, &sight);
		}
	}
}

void
onvm_capture_host(struct onvm_captures *captures, uint32_t worker,
		  const struct onvm_packet_memory *memory, uint16_t host, uint16_t owner,
		  enum onvm_capture_kind kind, const struct onvm_desc *descs, uint32_t nb)
{
	const uint64_t now = rte_rdtsc();

	for (uint32_t c = 0; c < ONVM_CAPTURES_MAX; c++) {
		/* P2: pairs with the release store P1 in onvm_dp_capture_start(). */
		struct onvm_capture *capture =
			__atomic_load_n(&captures->list[c], __ATOMIC_ACQUIRE);
		const uint32_t point = capture == NULL ? 0 : find_point(capture, 0, host, kind);

		if (capture == NULL || point == capture->nb_points)
			continue;
		for (uint32_t i = 0; i < nb; i++) {
			/* One read of each field: a host may change its descriptors meanwhile. */
			const struct onvm_desc desc = descs[i];

			if (desc.buffer >= memory->nb_buffers ||
			    memory->buffers[desc.buffer].owner != owner || desc.length == 0 ||
			    (uint32_t)desc.offset + desc.length >
				    memory->mbufs[desc.buffer]->buf_len)
				continue;
			copy(capture, &capture->rings[worker], (uint8_t)point, kind, now,
			     &(struct sight){
				     .data = memory->base + (uint64_t)desc.buffer * memory->stride +
					     desc.offset,
				     .length = desc.length,
				     .buffer = desc.buffer,
				     .destination = desc.port,
				     .verdict_stage = kind == ONVM_CAPTURE_FROM_HOST ?
							      desc.verdict_stage :
							      ONVM_CAPTURE_NO_VERDICT,
			     });
		}
	}
}

/* ---- the reader's side ---- */

struct onvm_capture *
onvm_capture_create(uint32_t nb_workers, uint64_t ring_bytes)
{
	const uint64_t size = rte_align64pow2(RTE_MAX(ring_bytes, (uint64_t)RING_BYTES_MIN));
	struct onvm_capture *capture =
		aligned_alloc(RTE_CACHE_LINE_SIZE, RTE_ALIGN(sizeof(*capture), 64));

	if (capture == NULL)
		return NULL;
	memset(capture, 0, sizeof(*capture));
	capture->nb_rings = nb_workers;
	for (uint32_t i = 0; i < nb_workers; i++) {
		capture->rings[i].size = size;
		capture->rings[i].bytes = aligned_alloc(RTE_CACHE_LINE_SIZE, size);
		if (capture->rings[i].bytes == NULL) {
			onvm_capture_free(capture);
			return NULL;
		}
		/* The worker shall not be the first to touch its pages. */
		memset(capture->rings[i].bytes, 0, size);
	}
	return capture;
}

void
onvm_capture_free(struct onvm_capture *capture)
{
	for (uint32_t i = 0; capture != NULL && i < capture->nb_rings; i++)
		free(capture->rings[i].bytes);
	if (capture != NULL && capture->filter != NULL) {
		pcap_freecode(capture->filter);
		free(capture->filter);
	}
	if (capture != NULL)
		free(capture->numbers);
	free(capture);
}

/** The oldest copy of one ring, or NULL. */
static const struct onvm_capture_record *
peek_ring(struct onvm_capture_ring *ring)
{
	/* C4: pairs with the release store C3 in copy(). */
	const uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);

	while (ring->tail != head) {
		const uint64_t offset = ring->tail & (ring->size - 1);
		const struct onvm_capture_record *record =
			(const struct onvm_capture_record *)(ring->bytes + offset);

		if (record->point != ONVM_CAPTURE_SKIP)
			return record;
		__atomic_store_n(&ring->tail, ring->tail + (ring->size - offset), __ATOMIC_RELEASE);
	}
	return NULL;
}

const struct onvm_capture_record *
onvm_capture_peek(struct onvm_capture *capture, uint32_t *ring)
{
	const struct onvm_capture_record *oldest = NULL;

	for (uint32_t i = 0; i < capture->nb_rings; i++) {
		const struct onvm_capture_record *record = peek_ring(&capture->rings[i]);

		if (record == NULL || (oldest != NULL && oldest->tsc <= record->tsc))
			continue;
		oldest = record;
		*ring = i;
	}
	return oldest;
}

void
onvm_capture_next(struct onvm_capture *capture, uint32_t ring)
{
	struct onvm_capture_ring *own = &capture->rings[ring];
	const struct onvm_capture_record *record =
		(const struct onvm_capture_record *)(own->bytes + (own->tail & (own->size - 1)));

	/* C2: pairs with the acquire load C1 in reserve_bytes(). */
	__atomic_store_n(&own->tail,
			 own->tail +
				 RTE_ALIGN(sizeof(*record) + record->captured, ONVM_CAPTURE_UNIT),
			 __ATOMIC_RELEASE);
}
