/* SPDX-License-Identifier: Apache-2.0 */
#include "packet_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4u
#endif

#define STRIDE_UNIT 64u /* a cache line; onvm_buffer_index() shifts by it */
#define HUGE_PAGE_BYTES (2ull << 20)
#define POOL_CACHE 512

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

static int
map_file(struct onvm_packet_memory *memory, unsigned int huge)
{
	const uint64_t page = huge != 0 ? HUGE_PAGE_BYTES : (uint64_t)sysconf(_SC_PAGESIZE);

	memory->bytes = round_up((uint64_t)memory->stride * memory->nb_buffers, HUGE_PAGE_BYTES);
	memory->fd = create_file(memory->bytes, huge);
	if (memory->fd < 0)
		return memory->fd;
	memory->base = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			    memory->fd, 0);
	if (memory->base == MAP_FAILED) {
		const int error = errno;

		memory->base = NULL;
		close(memory->fd);
		memory->fd = -1;
		return -error;
	}
	/* For drivers that use DMA; those that do not never ask. */
	if (rte_extmem_register(memory->base, memory->bytes, NULL, 0, page) != 0 &&
	    rte_errno != EEXIST)
		return -rte_errno;
	return 0;
}

static void
init_mbuf(struct rte_mempool *pool, void *arg, void *object, unsigned int index)
{
	struct onvm_packet_memory *memory = arg;
	struct rte_mbuf *mbuf = object;

	rte_pktmbuf_init(pool, NULL, object, index);
	mbuf->buf_addr = memory->base + (uint64_t)index * memory->stride;
	rte_mbuf_iova_set(mbuf, (rte_iova_t)(uintptr_t)mbuf->buf_addr);
	mbuf->buf_len = (uint16_t)memory->stride;
	memory->mbufs[index] = mbuf;
}

/** A mempool of bare mbufs; their data rooms lie in the memfd. */
static int
create_pool(struct onvm_packet_memory *memory)
{
	struct rte_pktmbuf_pool_private priv;
	struct rte_mempool *pool;

	memset(&priv, 0, sizeof(priv));
	pool = rte_mempool_create_empty("onvm-packets", memory->nb_buffers, sizeof(struct rte_mbuf),
					POOL_CACHE, sizeof(priv), (int)rte_socket_id(), 0);
	if (pool == NULL)
		return -rte_errno;
	memory->pool = pool;
	rte_pktmbuf_pool_init(pool, &priv);
	if (rte_mempool_populate_default(pool) < 0)
		return -ENOMEM;
	/* rte_pktmbuf_init() derives buf_len from this; it must be 0 until the mbufs are ours. */
	rte_mempool_obj_iter(pool, init_mbuf, memory);
	((struct rte_pktmbuf_pool_private *)rte_mempool_get_priv(pool))->mbuf_data_room_size =
		(uint16_t)memory->stride;
	for (uint32_t i = 0; i < memory->nb_buffers; i++)
		if (memory->mbufs[i] == NULL || onvm_buffer_index(memory, memory->mbufs[i]) != i)
			return -EFAULT;
	return 0;
}

int
onvm_packet_memory_init(struct onvm_packet_memory *memory, uint32_t nb_buffers, uint32_t data_bytes,
			int use_huge_pages)
{
	uint64_t units = round_up((uint64_t)data_bytes + RTE_PKTMBUF_HEADROOM, STRIDE_UNIT) /
			 STRIDE_UNIT;
	int rc = -ENOMEM;

	memset(memory, 0, sizeof(*memory));
	memory->fd = -1;
	units |= 1;
	if (nb_buffers == 0 || units * STRIDE_UNIT > UINT16_MAX)
		return -EINVAL;
	memory->nb_buffers = nb_buffers;
	memory->stride = (uint32_t)(units * STRIDE_UNIT);
	memory->reciprocal = (1ull << 32) / units + 1;
	memory->mbufs = calloc(nb_buffers, sizeof(*memory->mbufs));
	memory->times = calloc(nb_buffers, sizeof(*memory->times));
	memory->buffers = aligned_alloc(64, round_up(nb_buffers * sizeof(*memory->buffers), 64));
	if (memory->mbufs != NULL && memory->times != NULL && memory->buffers != NULL) {
		memset(memory->buffers, 0, nb_buffers * sizeof(*memory->buffers));
		rc = use_huge_pages ? map_file(memory, MFD_HUGETLB) : -ENOMEM;
		if (rc != 0)
			rc = map_file(memory, 0);
		if (rc == 0)
			rc = create_pool(memory);
	}
	if (rc != 0)
		onvm_packet_memory_free(memory);
	return rc;
}

void
onvm_packet_memory_free(struct onvm_packet_memory *memory)
{
	rte_mempool_free(memory->pool);
	if (memory->base != NULL) {
		rte_extmem_unregister(memory->base, memory->bytes);
		munmap(memory->base, memory->bytes);
	}
	if (memory->fd >= 0)
		close(memory->fd);
	free(memory->mbufs);
	free(memory->times);
	free(memory->buffers);
	memset(memory, 0, sizeof(*memory));
	memory->fd = -1;
}
