/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <onvm/tables.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <rte_malloc.h>
#include <rte_memory.h>

#define PAGE_BYTES ((size_t)2 << 20)

static size_t
whole_pages(size_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* Whole huge pages, at the place where they can be ones. */
static void *
pages_map(size_t bytes)
{
	uint8_t *const memory = mmap(NULL, bytes + PAGE_BYTES, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;

	if (memory == MAP_FAILED)
		return NULL;
	before = (PAGE_BYTES - (uintptr_t)memory % PAGE_BYTES) % PAGE_BYTES;
	if (before != 0)
		munmap(memory, before);
	munmap(memory + before + bytes, PAGE_BYTES - before);
	madvise(memory + before, bytes, MADV_HUGEPAGE); /* small pages do as well */
	return memory + before;
}

void *
onvm_memory_create(size_t bytes)
{
	return bytes < MEMORY_LARGE_BYTES ? calloc(bytes, 1) : pages_map(whole_pages(bytes));
}

void
onvm_memory_free(void *memory, size_t bytes)
{
	if (bytes < MEMORY_LARGE_BYTES)
		free(memory);
	else if (memory != NULL)
		munmap(memory, whole_pages(bytes));
}

void
memory_heap_create(struct memory_heap *heap, size_t bytes)
{
	static uint32_t serial;

	heap->socket = SOCKET_ID_ANY;
	heap->memory = NULL;
	heap->bytes = whole_pages(bytes);
	if (bytes < MEMORY_LARGE_BYTES)
		return;
	snprintf(heap->name, sizeof(heap->name), "table_%u",
		 __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED));
	if (rte_malloc_heap_create(heap->name) != 0)
		return; /* there are as many as DPDK can have */
	heap->memory = pages_map(heap->bytes);
	if (heap->memory == NULL ||
	    rte_malloc_heap_memory_add(heap->name, heap->memory, heap->bytes, NULL, 0,
				       PAGE_BYTES) != 0) {
		if (heap->memory != NULL)
			munmap(heap->memory, heap->bytes);
		heap->memory = NULL;
		rte_malloc_heap_destroy(heap->name);
		return;
	}
	/* DPDK has filled it with zeros; what its first and last page hold is DPDK's. */
	if (heap->bytes > 2 * PAGE_BYTES)
		madvise((uint8_t *)heap->memory + PAGE_BYTES, heap->bytes - 2 * PAGE_BYTES,
			MADV_DONTNEED);
	heap->socket = rte_malloc_heap_get_socket(heap->name);
}

void
memory_heap_free(struct memory_heap *heap)
{
	if (heap->memory == NULL)
		return;
	if (rte_malloc_heap_memory_remove(heap->name, heap->memory, heap->bytes) == 0)
		munmap(heap->memory, heap->bytes);
	rte_malloc_heap_destroy(heap->name);
	heap->memory = NULL;
}
