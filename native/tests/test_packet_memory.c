/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: packet memory of one and of two sockets, one of which this host does not have: indices
 * count through both areas and each finds its mbuf; buffers go back to the area they are from,
 * in any order, freed by any thread; an area that is used up takes nothing of the other; a
 * socket that does not exist is reported, and costs nothing; the thread's own memory policy stays.
 */
#include "packet_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test.h"
#include "test_eal.h"

#define BUFFERS 2048 /* more than four times what an lcore keeps for itself */
#define LARGE 40
#define NOWHERE 900 /* a socket that no host has */

static struct onvm_packet_memory memory;

static uint32_t
nb_free(uint32_t area)
{
	return rte_mempool_avail_count(memory.areas[area].pool);
}

/** Every buffer of every area: its index, its data's place and its mbuf name each other. */
static void
check_indices(void)
{
	for (uint32_t i = 0; i < memory.nb_buffers; i++) {
		const struct rte_mbuf *mbuf = memory.mbufs[i];
		const struct onvm_memory_area *area = &memory.areas[i / BUFFERS];

		CHECK(onvm_buffer_index(&memory, mbuf) == i);
		CHECK((uint8_t *)mbuf->buf_addr == memory.base + (uint64_t)i * memory.stride);
		CHECK(mbuf->buf_len == memory.stride);
		/* Behind an IOMMU a device uses our addresses. */
		CHECK(rte_mbuf_iova_get(mbuf) == (rte_iova_t)(uintptr_t)mbuf->buf_addr);
		CHECK(mbuf->pool == area->pool);
		CHECK(i >= area->first && i < area->first + area->nb_buffers);
	}
}

static void
take(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t nb)
{
	for (uint32_t i = 0; i < nb; i++) {
		mbufs[i] = rte_pktmbuf_alloc(pool);
		CHECK(mbufs[i] != NULL);
	}
}

static void
test_one_area(void)
{
	static struct rte_mbuf *mbufs[BUFFERS];
	const uint32_t nodes[] = {0};

	CHECK(onvm_packet_memory_init(&memory, nodes, 1, BUFFERS, 0, 2048, 0) == 0);
	CHECK(memory.nb_areas == 1 && memory.nb_buffers == BUFFERS && nb_free(0) == BUFFERS);
	CHECK(memory.areas[0].nb_withheld == 0 && memory.iovas == NULL && memory.nb_devices == 0);
	check_indices();
	take(onvm_packet_pool(&memory, 0), mbufs, BUFFERS);
	CHECK(rte_pktmbuf_alloc(onvm_packet_pool(&memory, 0)) == NULL);
	onvm_packets_free(&memory, mbufs, BUFFERS);
	CHECK(nb_free(0) == BUFFERS);
	onvm_packet_memory_free(&memory);
}

/** Large buffers: places behind all others, in a pool of their own, made when it is needed. */
static void
test_large_buffers(void)
{
	static struct rte_mbuf *mbufs[2 * LARGE];
	const uint32_t nodes[] = {0};
	uint32_t nb_mixed = 0;

	CHECK(onvm_packet_memory_init(&memory, nodes, 1, BUFFERS, LARGE, 2048, 0) == 0);
	CHECK(memory.first_large == BUFFERS);
	CHECK_EQUAL(memory.nb_buffers, BUFFERS + LARGE * memory.large_span);
	CHECK(memory.large_span * memory.stride >= UINT16_MAX);
	CHECK(memory.large.pool == NULL && memory.only_pool == memory.areas[0].pool);
	CHECK(onvm_packet_memory_add_large(&memory) == 0);
	CHECK(onvm_packet_memory_add_large(&memory) == 0); /* there is one */
	CHECK(memory.only_pool == NULL);
	take(memory.large.pool, mbufs, LARGE);
	CHECK(rte_pktmbuf_alloc(memory.large.pool) == NULL);
	for (uint32_t i = 0; i < LARGE; i++) {
		const uint32_t index = onvm_buffer_index(&memory, mbufs[i]);

		CHECK(index >= BUFFERS && (index - BUFFERS) % memory.large_span == 0);
		CHECK(memory.mbufs[index] == mbufs[i] && memory.mbufs[index + 1] == NULL);
		CHECK(mbufs[i]->buf_addr == memory.base + (uint64_t)index * memory.stride);
		CHECK_EQUAL(mbufs[i]->buf_len, UINT16_MAX);
		/* All of it is there, and no other's. */
		memset(mbufs[i]->buf_addr, (int)i, mbufs[i]->buf_len);
	}
	for (uint32_t i = 0; i < LARGE; i++) {
		const uint8_t *data = mbufs[i]->buf_addr;

		CHECK(data[0] == (uint8_t)i && data[UINT16_MAX - 1] == (uint8_t)i);
	}
	/* Freed together with others, each goes home. */
	for (uint32_t i = LARGE; i-- != 0;) {
		struct rte_mbuf *large = mbufs[i];

		take(memory.areas[0].pool, &mbufs[2 * i], 1);
		mbufs[2 * i + 1] = large;
		nb_mixed += 2;
	}
	onvm_packets_free(&memory, mbufs, nb_mixed);
	CHECK(nb_free(0) == BUFFERS && rte_mempool_avail_count(memory.large.pool) == LARGE);
	onvm_packet_memory_free(&memory);
}

/** Where the first addresses are taken, memory lies elsewhere; and below 39 bits, if that is free. */
static void
test_place(void)
{
	const uint32_t nodes[] = {0};
	struct onvm_packet_memory other;

	CHECK(onvm_packet_memory_init(&memory, nodes, 1, BUFFERS, 0, 2048, 0) == 0);
	CHECK(onvm_packet_memory_init(&other, nodes, 1, BUFFERS, 0, 2048, 0) !=
	      0); /* pool's name */
	CHECK(other.base == NULL);
#ifndef __SANITIZE_ADDRESS__ /* its shadow lies there */
	CHECK((uintptr_t)memory.base + memory.bytes <= 1ull << 39);
#endif
	onvm_packet_memory_free(&memory);
}

static void
test_two_areas(void)
{
	static struct rte_mbuf *all[2 * BUFFERS], *mixed[2 * BUFFERS];
	const uint32_t nodes[] = {0, NOWHERE};
	struct rte_mempool *near, *far;

	CHECK(onvm_packet_memory_init(&memory, nodes, 2, BUFFERS, 0, 2048, 0) == 0);
	CHECK(memory.nb_areas == 2 && memory.nb_buffers == 2 * BUFFERS);
	CHECK(memory.areas[0].node == 0 && memory.areas[0].first == 0);
	CHECK(memory.areas[1].node == NOWHERE && memory.areas[1].first == BUFFERS);
	CHECK(memory.areas[1].bind_error != 0);
	check_indices();
	near = onvm_packet_pool(&memory, 0);
	far = onvm_packet_pool(&memory, NOWHERE);
	CHECK(near != far && near == onvm_packet_pool(&memory, 1));

	take(near, all, BUFFERS);
	CHECK(rte_pktmbuf_alloc(near) == NULL);
	CHECK(nb_free(0) == 0 && nb_free(1) == BUFFERS);
	take(far, &all[BUFFERS], BUFFERS);
	CHECK(rte_pktmbuf_alloc(far) == NULL);
	/* Runs of every length from 1 on, of one and the other in turn. */
	for (uint32_t i = 0, n = 0, next[2] = {0, BUFFERS}, run = 1; n < 2 * BUFFERS; i ^= 1, run++)
		for (uint32_t k = 0; k < run % 67 + 1 && next[i] < (i + 1) * BUFFERS; k++)
			mixed[n++] = all[next[i]++];
	for (uint32_t i = 0; i < 2 * BUFFERS; i += 64)
		onvm_packets_free(&memory, &mixed[i], 64);
	CHECK(nb_free(0) == BUFFERS && nb_free(1) == BUFFERS);
	check_indices();

	/* Buffers of a pool are of its area, also after all that. */
	take(far, all, BUFFERS);
	for (uint32_t i = 0; i < BUFFERS; i++)
		CHECK(onvm_buffer_index(&memory, all[i]) >= BUFFERS);
	rte_pktmbuf_free_bulk(all, BUFFERS);
	CHECK(nb_free(0) == BUFFERS && nb_free(1) == BUFFERS);
	onvm_packet_memory_free(&memory);
}

static void
test_impossible(void)
{
	const uint32_t nodes[ONVM_AREAS_MAX + 1] = {0};

	CHECK(onvm_packet_memory_init(&memory, nodes, 0, BUFFERS, 0, 2048, 0) == -EINVAL);
	CHECK(onvm_packet_memory_init(&memory, nodes, ONVM_AREAS_MAX + 1, BUFFERS, 0, 2048, 0) ==
	      -EINVAL);
	CHECK(onvm_packet_memory_init(&memory, nodes, 1, 0, 0, 2048, 0) == -EINVAL);
	CHECK(onvm_packet_memory_init(&memory, nodes, 1, BUFFERS, 0, UINT16_MAX, 0) == -EINVAL);
	/* The same socket twice: the second pool's name is taken; nothing is left of the first. */
	CHECK(onvm_packet_memory_init(&memory, nodes, 2, BUFFERS, 0, 2048, 0) != 0);
	CHECK(memory.base == NULL && memory.nb_areas == 0);
}

static int
own_policy(void)
{
	int policy = -1;

	return syscall(SYS_get_mempolicy, &policy, NULL, 0, NULL, 0) == 0 ? policy : -1;
}

int
main(void)
{
	int policy;

	test_eal_init("test", "128");
	policy = own_policy();
	RUN(test_one_area);
	RUN(test_large_buffers);
	RUN(test_place);
	RUN(test_two_areas);
	RUN(test_impossible);
	CHECK(own_policy() == policy);
	return 0;
}
