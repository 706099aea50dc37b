/* SPDX-License-Identifier: Apache-2.0 */
#include "packet_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4u
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* linux/mempolicy.h; the calls have no wrapper in the C library, and libnuma would be one more. */
#define POLICY_DEFAULT 0
#define POLICY_PREFERRED 1
#define NODES_MAX 1024
#define NODE_WORDS (NODES_MAX / (8 * sizeof(unsigned long)))

#define STRIDE_UNIT 64u /* a cache line; onvm_buffer_index() shifts by it */
#define HUGE_PAGE_BYTES (2ull << 20)
#define POOL_CACHE 512u

/* Addresses for packet memory. A device behind an IOMMU uses them as they are, and small IOMMUs
 * have 39 bits; the kernel's own choice lies near the end of 47. */
#define LOW_BEGIN (8ull << 30)
#define LOW_END (1ull << 39)
#define LOW_STEP (1ull << 30)

static uint64_t
round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/** Create, size and seal the memfd. */
static int
create_file(uint64_t bytes, unsigned int huge)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	const int fd = memfd_create("onvm-packets", MFD_CLOEXEC | MFD_ALLOW_SEALING | huge);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) != 0 || fcntl(fd, F_ADD_SEALS, seals) != 0) {
		const int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

/** Map the file where IOMMUs of 39 bits reach it, or else where the kernel likes. */
static void *
map_low(int fd, uint64_t bytes)
{
	for (uint64_t at = LOW_BEGIN; at + bytes <= LOW_END; at += LOW_STEP) {
		void *const wanted = (void *)(uintptr_t)at;
		void *const base = mmap(wanted, bytes, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);

		if (base == wanted)
			return base;
		if (base != MAP_FAILED) { /* before Linux 4.17 the address is a hint */
			munmap(base, bytes);
			break;
		}
		if (errno != EEXIST)
			break;
	}
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static int
map_file(struct onvm_packet_memory *memory, unsigned int huge)
{
	memory->page = huge != 0 ? HUGE_PAGE_BYTES : (uint64_t)sysconf(_SC_PAGESIZE);
	memory->bytes = round_up((uint64_t)memory->stride * memory->nb_buffers, HUGE_PAGE_BYTES);
	memory->fd = create_file(memory->bytes, huge);
	if (memory->fd < 0)
		return memory->fd;
	/* Pages come when the areas touch them, each from its node. Huge ones are reserved here,
	 * so that a lack of them shows now. */
	memory->base = map_low(memory->fd, memory->bytes);
	if (memory->base == MAP_FAILED) {
		const int error = errno;

		memory->base = NULL;
		close(memory->fd);
		memory->fd = -1;
		return -error;
	}
	return 0;
}

/**
 * Tell EAL of the memory, and find out what devices call it: with an IOMMU they use our addresses,
 * without one those of the physical pages. Only huge pages keep theirs. All pages are there.
 */
static int
register_memory(struct onvm_packet_memory *memory)
{
	const uint32_t nb_pages = (uint32_t)(memory->bytes / memory->page);

	if (rte_eal_iova_mode() == RTE_IOVA_PA && memory->page == HUGE_PAGE_BYTES) {
		memory->iovas = calloc(nb_pages, sizeof(*memory->iovas));
		if (memory->iovas == NULL)
			return -ENOMEM;
		for (uint32_t i = 0; i < nb_pages; i++) {
			memory->iovas[i] = rte_mem_virt2iova(memory->base + i * memory->page);
			if (memory->iovas[i] == RTE_BAD_IOVA)
				return -EPERM;
		}
	}
	if (rte_extmem_register(memory->base, memory->bytes, memory->iovas,
				memory->iovas == NULL ? 0 : nb_pages, memory->page) != 0 &&
	    rte_errno != EEXIST)
		return -rte_errno;
	return 0;
}

/** What devices call the @p bytes at @p offset; RTE_BAD_IOVA when they cannot use them. */
static rte_iova_t
buffer_iova(const struct onvm_packet_memory *memory, uint64_t offset, uint32_t bytes)
{
	const uint64_t first = offset / memory->page;
	const uint64_t last = (offset + bytes - 1) / memory->page;

	if (rte_eal_iova_mode() != RTE_IOVA_PA)
		return (rte_iova_t)(uintptr_t)(memory->base + offset);
	if (memory->iovas == NULL ||
	    memory->iovas[last] != memory->iovas[first] + (last - first) * memory->page)
		return RTE_BAD_IOVA;
	return memory->iovas[first] + offset % memory->page;
}

struct area_of_memory {
	struct onvm_packet_memory *memory;
	const struct onvm_memory_area *area;
	uint32_t span;	/**< indices of each buffer */
	uint32_t bytes; /**< of each buffer */
};

static void
init_mbuf(struct rte_mempool *pool, void *arg, void *object, unsigned int number)
{
	const struct area_of_memory *made = arg;
	struct onvm_packet_memory *memory = made->memory;
	const uint32_t index = made->area->first + number * made->span;
	const uint64_t offset = (uint64_t)index * memory->stride;
	struct rte_mbuf *mbuf = object;

	rte_pktmbuf_init(pool, NULL, object, number);
	mbuf->buf_addr = memory->base + offset;
	rte_mbuf_iova_set(mbuf, buffer_iova(memory, offset, made->bytes));
	mbuf->buf_len = (uint16_t)made->bytes;
	mbuf->data_off = RTE_PKTMBUF_HEADROOM;
	memory->mbufs[index] = mbuf;
}

/** Let pages that this thread touches first come from @p node, if possible; 0 or the errno. */
static int
prefer_node(uint32_t node)
{
	unsigned long nodes[NODE_WORDS] = {0};

	if (node >= NODES_MAX)
		return EINVAL;
	nodes[node / (8 * sizeof(nodes[0]))] = 1ul << node % (8 * sizeof(nodes[0]));
	/* The kernel reads one bit less than it is told of. */
	return syscall(SYS_set_mempolicy, POLICY_PREFERRED, nodes, NODES_MAX + 1) == 0 ? 0 : errno;
}

/** Touch the pages of indices, so that they come now and not with the first packet. */
static void
touch(const struct onvm_packet_memory *memory, uint32_t index, uint32_t nb)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t first = (uint64_t)index * memory->stride / page * page;
	const uint64_t end = (uint64_t)(index + nb) * memory->stride;

	if (madvise(memory->base + first, end - first, MADV_POPULATE_WRITE) == 0)
		return;
	/* Before Linux 5.14. No process has mapped it yet, and all of it is 0. */
	for (uint64_t offset = first; offset < end; offset += page)
		*(volatile uint8_t *)(memory->base + offset) = 0;
}

/** Keep buffers that no device can use, since they are in two pages, out of their pool. */
static int
withhold(struct onvm_memory_area *area)
{
	struct rte_mbuf **mbufs;
	uint32_t nb_good = 0;

	mbufs = calloc(area->nb_buffers, sizeof(*mbufs));
	if (mbufs == NULL)
		return -ENOMEM;
	/* Past the caches: what one of them held would count as withheld. */
	if (rte_mempool_generic_get(area->pool, (void **)mbufs, area->nb_buffers, NULL) != 0) {
		free(mbufs);
		return -ENOENT;
	}
	for (uint32_t i = 0; i < area->nb_buffers; i++)
		if (rte_mbuf_iova_get(mbufs[i]) != RTE_BAD_IOVA)
			mbufs[nb_good++] = mbufs[i];
	rte_mempool_generic_put(area->pool, (void **)mbufs, nb_good, NULL);
	area->nb_withheld = area->nb_buffers - nb_good;
	free(mbufs);
	return 0;
}

/** Memory for the mbufs of an area, without their data. @return NULL: see rte_errno */
static struct rte_mempool *
allocate_mbufs(const struct onvm_memory_area *area, const char *name, int node)
{
	struct rte_pktmbuf_pool_private priv;
	struct rte_mempool *pool;

	memset(&priv, 0, sizeof(priv));
	pool = rte_mempool_create_empty(name, area->nb_buffers, sizeof(struct rte_mbuf),
					RTE_MIN(POOL_CACHE, area->nb_buffers / 16), sizeof(priv),
					node, 0);
	if (pool == NULL)
		return NULL;
	rte_pktmbuf_pool_init(pool, &priv);
	if (rte_mempool_populate_default(pool) >= 0)
		return pool;
	rte_mempool_free(pool);
	rte_errno = ENOMEM;
	return NULL;
}

/** A mempool of bare mbufs; their data rooms lie in the memfd. */
static int
create_pool(struct onvm_packet_memory *memory, struct onvm_memory_area *area, const char *name,
	    uint32_t span, uint32_t bytes)
{
	struct area_of_memory made = {memory, area, span, bytes};
	struct rte_mempool *pool = NULL;

	/* Without huge pages DPDK knows of one node alone, and what we touch now is from where we
	 * prefer it. With them, each node has its own, or has none left. */
	if (rte_eal_has_hugepages())
		pool = allocate_mbufs(area, name, (int)area->node);
	if (pool == NULL)
		pool = allocate_mbufs(area, name, SOCKET_ID_ANY);
	if (pool == NULL)
		return -rte_errno;
	area->pool = pool;
	/* rte_pktmbuf_init() derives buf_len from this; it must be 0 until the mbufs are ours. */
	rte_mempool_obj_iter(pool, init_mbuf, &made);
	((struct rte_pktmbuf_pool_private *)rte_mempool_get_priv(pool))->mbuf_data_room_size =
		(uint16_t)bytes;
	for (uint32_t n = 0, i = area->first; n < area->nb_buffers; n++, i += span)
		if (memory->mbufs[i] == NULL || onvm_buffer_index(memory, memory->mbufs[i]) != i)
			return -EFAULT;
	return memory->iovas == NULL ? 0 : withhold(area);
}

/** Make the areas, each in its node's memory; the thread's own memory policy stays. */
static int
create_areas(struct onvm_packet_memory *memory)
{
	unsigned long nodes[NODE_WORDS] = {0};
	int policy = POLICY_DEFAULT, rc = 0;
	const bool is_known = syscall(SYS_get_mempolicy, &policy, nodes, NODES_MAX + 1, NULL, 0) ==
			      0;

	for (uint32_t i = 0; i < memory->nb_areas; i++) {
		struct onvm_memory_area *area = &memory->areas[i];

		area->bind_error = prefer_node(area->node);
		touch(memory, area->first, area->nb_buffers);
	}
	rc = register_memory(memory);
	for (uint32_t i = 0; i < memory->nb_areas && rc == 0; i++) {
		struct onvm_memory_area *area = &memory->areas[i];
		char name[RTE_MEMPOOL_NAMESIZE];

		(void)prefer_node(area->node);
		snprintf(name, sizeof(name), "onvm-packets-%u", area->node);
		rc = create_pool(memory, area, name, 1, memory->stride);
	}
	if (memory->nb_areas == 1)
		memory->only_pool = memory->areas[0].pool;
	if (is_known)
		(void)syscall(SYS_set_mempolicy, policy, nodes, NODES_MAX + 1);
	return rc;
}

int
onvm_packet_memory_add_large(struct onvm_packet_memory *memory)
{
	struct onvm_memory_area *large = &memory->large;
	int rc;

	if (large->pool != NULL || large->nb_buffers == 0)
		return 0;
	touch(memory, large->first, large->nb_buffers * memory->large_span);
	rc = create_pool(memory, large, "onvm-packets-large", memory->large_span,
			 memory->large_bytes);
	if (rc != 0) {
		rte_mempool_free(large->pool);
		large->pool = NULL;
		return rc;
	}
	/* Until the first large buffer is in use, and that is later, either way of freeing is right. */
	__atomic_store_n(&memory->only_pool, NULL, __ATOMIC_RELAXED);
	return 0;
}

uint64_t
onvm_packet_stride(uint32_t data_bytes)
{
	const uint64_t bytes = round_up((uint64_t)data_bytes + RTE_PKTMBUF_HEADROOM, STRIDE_UNIT);

	return (bytes / STRIDE_UNIT | 1) * STRIDE_UNIT;
}

int
onvm_packet_memory_init(struct onvm_packet_memory *memory, const uint32_t *nodes, uint32_t nb_nodes,
			uint32_t nb_buffers, uint32_t nb_large, uint32_t data_bytes,
			int use_huge_pages)
{
	const uint64_t stride = onvm_packet_stride(data_bytes);
	int rc = -ENOMEM;

	memset(memory, 0, sizeof(*memory));
	memory->fd = -1;
	if (nb_buffers == 0 || stride > UINT16_MAX || nb_nodes == 0 || nb_nodes > ONVM_AREAS_MAX ||
	    (uint64_t)nb_buffers * nb_nodes + (uint64_t)nb_large * UINT16_MAX > UINT32_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < nb_nodes; i++)
		memory->areas[i] = (struct onvm_memory_area){.node = nodes[i],
							     .first = i * nb_buffers,
							     .nb_buffers = nb_buffers};
	memory->nb_areas = nb_nodes;
	nb_buffers *= nb_nodes;
	memory->first_large = nb_buffers;
	memory->large_span = (uint32_t)((UINT16_MAX + stride - 1) / stride);
	memory->large_bytes = UINT16_MAX;
	memory->large = (struct onvm_memory_area){.node = nodes[0],
						  .first = nb_buffers,
						  .nb_buffers = nb_large};
	nb_buffers += nb_large * memory->large_span;
	memory->nb_buffers = nb_buffers;
	memory->stride = (uint32_t)stride;
	memory->reciprocal = (1ull << 32) / (stride / STRIDE_UNIT) + 1;
	memory->mbufs = calloc(nb_buffers, sizeof(*memory->mbufs));
	memory->times = calloc(nb_buffers, sizeof(*memory->times));
	memory->buffers = aligned_alloc(64, round_up(nb_buffers * sizeof(*memory->buffers), 64));
	if (memory->mbufs != NULL && memory->times != NULL && memory->buffers != NULL) {
		memset(memory->buffers, 0, nb_buffers * sizeof(*memory->buffers));
		/* Devices without an IOMMU can use nothing else. */
		use_huge_pages |= rte_eal_iova_mode() == RTE_IOVA_PA;
		rc = use_huge_pages ? map_file(memory, MFD_HUGETLB) : -ENOMEM;
		if (rc != 0)
			rc = map_file(memory, 0);
		if (rc == 0)
			rc = create_areas(memory);
	}
	if (rc != 0)
		onvm_packet_memory_free(memory);
	return rc;
}

void
onvm_packet_memory_free(struct onvm_packet_memory *memory)
{
	for (uint32_t i = 0; i < memory->nb_areas; i++)
		rte_mempool_free(memory->areas[i].pool);
	rte_mempool_free(memory->large.pool);
	if (memory->base != NULL) {
		rte_extmem_unregister(memory->base, memory->bytes);
		munmap(memory->base, memory->bytes);
	}
	if (memory->fd >= 0)
		close(memory->fd);
	free(memory->iovas);
	free(memory->mbufs);
	free(memory->times);
	free(memory->buffers);
	memset(memory, 0, sizeof(*memory));
	memory->fd = -1;
}

int
onvm_packet_memory_map(struct onvm_packet_memory *memory, struct rte_device *device)
{
	if (rte_eal_iova_mode() == RTE_IOVA_PA)
		return memory->iovas == NULL ? -ENOTSUP : 0;
	/* Devices behind VFIO share one table of mappings. */
	if (memory->nb_devices == 0 &&
	    rte_dev_dma_map(device, memory->base, (uintptr_t)memory->base, memory->bytes) != 0)
		return (uintptr_t)memory->base + memory->bytes > LOW_END ? -ERANGE : -ENOMEM;
	memory->nb_devices++;
	return 0;
}

void
onvm_packet_memory_unmap(struct onvm_packet_memory *memory, struct rte_device *device)
{
	if (memory->nb_devices != 0 && --memory->nb_devices == 0)
		(void)rte_dev_dma_unmap(device, memory->base, (uintptr_t)memory->base,
					memory->bytes);
}

struct rte_mempool *
onvm_packet_pool(const struct onvm_packet_memory *memory, uint32_t node)
{
	for (uint32_t i = 0; i < memory->nb_areas; i++)
		if (memory->areas[i].node == node)
			return memory->areas[i].pool;
	return memory->areas[0].pool;
}

void
onvm_packets_free_mixed(struct rte_mbuf **mbufs, uint32_t nb)
{
	for (uint32_t begin = 0, end; begin < nb; begin = end) {
		struct rte_mempool *pool = mbufs[begin]->pool;

		for (end = begin + 1; end < nb && mbufs[end]->pool == pool; end++)
			;
		rte_mempool_put_bulk(pool, (void **)&mbufs[begin], end - begin);
	}
}
