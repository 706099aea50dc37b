/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PACKET_MEMORY_H_
#define _ONVM_PACKET_MEMORY_H_

/**
 * @file
 * Packet memory in split layout: data in a sealed memfd that NFs map, mbufs in private memory.
 *
 * Every buffer has an mbuf whose buf_addr points into the memfd, and a private record (struct
 * onvm_buffer) with its owner and the position of its packet in the chain. NFs can write any byte
 * of packet data and nothing else, so no NF can make the manager follow a pointer.
 *
 * The stride is an odd number of cache lines: the headers of a burst spread over all cache sets.
 * (With an even number they would share half of them.)
 *
 * Each NUMA node with workers or NICs has an *area*: a range of buffers whose data and mbufs lie in
 * that node's memory, and a mempool over them. The code that allocates a buffer chooses the area;
 * the buffer goes back to its own pool (mbuf->pool) wherever it is freed. Indices count through all
 * areas, so descriptors, records and checks know nothing of areas.
 *
 * Packets that are larger than a buffer go into *large buffers*: frames of up to 64 KiB that a
 * kernel has merged, or will cut (GSO). A large buffer is a run of `large_span` places behind those
 * of all areas. It has the index of its first place, so its data lies where any index says; the
 * other indices of the run have no mbuf and are never with an NF. Their pool is made with the first
 * port that needs it: until then nothing touches their pages.
 *
 * Network cards read and write it too. Behind an IOMMU they use the manager's own addresses, once
 * onvm_packet_memory_map() has entered them. Without an IOMMU they use physical addresses: then
 * the pages must be huge, and a buffer that is not contiguous in them is withheld from its pool.
 *
 * Life: one per process, created after rte_eal_init(), freed after the workers have stopped.
 * Threads: the mempool is DPDK's. The record of a buffer belongs to the worker that has the buffer;
 * while an NF has it, to the worker of the link it went through.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <onvm/assert.h>

#include "table_sizes.h"

struct rte_device;

/** Bits of onvm_buffer.flags. */
enum onvm_buffer_flags {
	/** leaving, it tells of its flow, and teaches the reverse */
	ONVM_BUFFER_LEARN = 1 << 0,
	ONVM_BUFFER_SAMPLED = 1 << 1,	  /**< its times are measured */
	ONVM_BUFFER_LOANED = 1 << 2,	  /**< empty, with an NF that may fill it */
	ONVM_BUFFER_RESERVED = 1 << 3,	  /**< counted in the `reserved` of its path's links */
	ONVM_BUFFER_TEACH = 1 << 4,	  /**< as LEARN, but its flow is known at a peer */
	ONVM_BUFFER_PARTIAL = 1 << 5,	  /**< its transport checksum is made behind the chain */
	ONVM_BUFFER_MERGED = 1 << 6,	  /**< several packets in one, cut behind the chain */
	ONVM_BUFFER_TIMED = 1 << 7,	  /**< it has the time of a capture */
	ONVM_BUFFER_NOTE = 1 << 8,	  /**< with LEARN, see ONVM_BUFFER_OF_NOTE() */
	ONVM_BUFFER_FRAGMENTED = 1 << 10, /**< its datagram came in fragments, and leaves in such */
};

/** Flags that tell NFs of what is left to do, and of times: they stay from admission to the end. */
#define ONVM_BUFFER_HINTS \
	(ONVM_BUFFER_PARTIAL | ONVM_BUFFER_MERGED | ONVM_BUFFER_TIMED | ONVM_BUFFER_FRAGMENTED)
static_assert(ONVM_BUFFER_PARTIAL == ONVM_F_PARTIAL << 3 &&
		      ONVM_BUFFER_MERGED == ONVM_F_MERGED << 3 &&
		      ONVM_BUFFER_TIMED == ONVM_F_TIMED << 3 &&
		      ONVM_BUFFER_FRAGMENTED == ONVM_F_FRAGMENTED << 3,
	      "descriptors get them by a shift");
/** With LEARN, the place of an enum onvm_flow_note: TEACH has no other meaning then. */
#define ONVM_BUFFER_OF_NOTE(note) \
	((uint16_t)(((note) & 1 ? ONVM_BUFFER_NOTE : 0) | ((note) & 2 ? ONVM_BUFFER_TEACH : 0)))
#define ONVM_NOTE_OF_BUFFER(flags) \
	(((flags) & ONVM_BUFFER_NOTE ? 1u : 0u) | ((flags) & ONVM_BUFFER_TEACH ? 2u : 0u))
/** The flags of a descriptor that follow from those of its buffer. */
#define ONVM_DESC_HINTS(buffer_flags) ((uint8_t)(((buffer_flags) & ONVM_BUFFER_HINTS) >> 3))

#define ONVM_OWNER_NONE 0 /**< in the pool or with the manager */
#define ONVM_FLOW_NONE UINT32_MAX

/** The owner of a buffer, and the position of its packet. */
struct onvm_buffer {
	uint16_t owner; /**< link ID, or ONVM_OWNER_NONE */
	uint16_t path;	/**< rendered path */
	uint16_t flags; /**< enum onvm_buffer_flags */
	uint8_t hop;	/**< index into the path's hops */
	uint8_t port;	/**< ingress port */
	uint32_t flow;	/**< position in the flow table, or ONVM_FLOW_NONE */
	uint32_t flow_hash;
};
static_assert(sizeof(struct onvm_buffer) == 16, "four buffers per cache line");

/** Times of a sampled packet, in TSC cycles. */
struct onvm_buffer_times {
	uint64_t received;
	uint64_t enqueued;
};

/** Buffers [first, first + nb_buffers), near one NUMA node. */
struct onvm_memory_area {
	uint32_t node;
	uint32_t first;
	uint32_t nb_buffers;
	uint32_t nb_withheld; /**< of these, never in the pool: no device can use them */
	int bind_error;	      /**< errno with which the kernel refused that node's memory, or 0 */
	struct rte_mempool *pool;
};

struct onvm_packet_memory {
	int fd;
	uint8_t *base;
	uint64_t bytes;
	uint64_t page;	     /**< bytes */
	uint64_t *iovas;     /**< physical addresses of the pages, if devices use those; or NULL */
	uint32_t nb_devices; /**< with a mapping of it */
	uint32_t nb_buffers; /**< indices, those of large buffers included */
	uint32_t stride;     /**< bytes */
	uint64_t reciprocal; /**< of the stride in cache lines, for onvm_buffer_index() */
	uint32_t nb_areas;
	struct onvm_memory_area areas[ONVM_AREAS_MAX];
	/** atomic: the pool of all mbufs while there is one alone; else NULL */
	struct rte_mempool *only_pool;
	uint32_t first_large;		 /**< index of the first large buffer, or nb_buffers */
	uint32_t large_span;		 /**< indices of each of them */
	uint32_t large_bytes;		 /**< bytes of each of them, at most UINT16_MAX */
	struct onvm_memory_area large;	 /**< nb_buffers of them; its pool is NULL until needed */
	struct rte_mbuf **mbufs;	 /**< by buffer index; NULL inside a large buffer */
	struct onvm_buffer *buffers;	 /**< by buffer index */
	struct onvm_buffer_times *times; /**< by buffer index */
};

static_assert(RTE_PKTMBUF_HEADROOM == ONVM_HEADROOM, "packets begin where NF hosts expect them");

/** Bytes from one buffer to the next, for packets of up to @p data_bytes. */
uint64_t onvm_packet_stride(uint32_t data_bytes);
/**
 * Make packet memory. Where the kernel does not give a node's memory, the area is made in
 * any, and its bind_error says why.
 *
 * @param nodes          NUMA nodes, one area for each; no node twice
 * @param nb_nodes       1..ONVM_AREAS_MAX
 * @param nb_buffers     buffers of each area
 * @param nb_large       large buffers for all areas together, on the first node
 * @param data_bytes     largest packet a buffer must hold, headroom not counted
 * @param use_huge_pages MFD_HUGETLB; falls back to ordinary pages when there are too few
 * @return 0 or -errno
 */
int onvm_packet_memory_init(struct onvm_packet_memory *memory, const uint32_t *nodes,
			    uint32_t nb_nodes, uint32_t nb_buffers, uint32_t nb_large,
			    uint32_t data_bytes, int use_huge_pages);
/**
 * Make the pool of large buffers, if there is none. Control thread only, before any port that uses
 * it is open.
 *
 * @return 0 or -errno
 */
int onvm_packet_memory_add_large(struct onvm_packet_memory *memory);
void onvm_packet_memory_free(struct onvm_packet_memory *memory);

/**
 * Let a device read and write packet memory: map it in the IOMMU. Control thread only.
 *
 * @return 0; -ENOTSUP: there is no IOMMU and the pages are not huge; -ERANGE: the kernel refused,
 * and packet memory lies high; -ENOMEM: the kernel refused, mostly because of RLIMIT_MEMLOCK
 */
int onvm_packet_memory_map(struct onvm_packet_memory *memory, struct rte_device *device);
/** Undo onvm_packet_memory_map(); the device has stopped. */
void onvm_packet_memory_unmap(struct onvm_packet_memory *memory, struct rte_device *device);

/** The pool of a NUMA node; of the first area for a node that has none. */
struct rte_mempool *onvm_packet_pool(const struct onvm_packet_memory *memory, uint32_t node);

/** As onvm_packets_free(), of several areas. */
void onvm_packets_free_mixed(struct rte_mbuf **mbufs, uint32_t nb);

/** Give own mbufs with one reference and one segment back to the pools that they are from. */
static inline void
onvm_packets_free(const struct onvm_packet_memory *memory, struct rte_mbuf **mbufs, uint32_t nb)
{
	struct rte_mempool *pool = __atomic_load_n(&memory->only_pool, __ATOMIC_RELAXED);

	if (likely(pool != NULL))
		rte_mempool_put_bulk(pool, (void **)mbufs, nb);
	else
		onvm_packets_free_mixed(mbufs, nb);
}

/** Index of the buffer that @p mbuf describes. */
static inline uint32_t
onvm_buffer_index(const struct onvm_packet_memory *memory, const struct rte_mbuf *mbuf)
{
	const uint64_t offset = (uint64_t)((const uint8_t *)mbuf->buf_addr - memory->base) >> 6;

	const uint32_t index = (uint32_t)((offset * memory->reciprocal) >> 32);

	ONVM_ASSERT(index < memory->nb_buffers && memory->mbufs[index] == mbuf);
	return index;
}

/** Whether the buffer that @p mbuf describes is with the manager: no NF host may write to it. */
static inline bool
onvm_buffer_is_ours(const struct onvm_packet_memory *memory, const struct rte_mbuf *mbuf)
{
	return memory->buffers[onvm_buffer_index(memory, mbuf)].owner == ONVM_OWNER_NONE;
}

#endif /* _ONVM_PACKET_MEMORY_H_ */
