/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TABLES_MEMORY_H_
#define _ONVM_TABLES_MEMORY_H_

/**
 * @file
 * Memory for large tables, in the system's transparent huge pages, which need no privilege.
 *
 * DPDK's own heap has pages of 4 KiB in processes without huge pages. A look-up among a million flows
 * then takes longer to find its pages than to read them.
 *
 * Memory is zero, and costs nothing before it is used.
 */

#include <stddef.h>

/** Below that, tables lie in the common heaps. */
#define MEMORY_LARGE_BYTES (1u << 20)

/** A heap of DPDK's for the allocations of one table. */
struct memory_heap {
	char name[16];
	void *memory; /**< NULL: it is the common heap */
	size_t bytes;
	int socket; /**< what DPDK calls it */
};

/** Make a heap of about @p bytes. One that is small, or cannot be made, is the common heap. */
void memory_heap_create(struct memory_heap *heap, size_t bytes);
/** Free it; all that was allocated from it has been freed. */
void memory_heap_free(struct memory_heap *heap);

#endif /* _ONVM_TABLES_MEMORY_H_ */
