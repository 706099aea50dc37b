/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PCAPNG_H_
#define _ONVM_PCAPNG_H_

/**
 * @file
 * Writing pcapng (draft-ietf-opsawg-pcapng) to a file descriptor.
 *
 * One section in the byte order of this host; one interface for each point, with its name and
 * timestamps in nanoseconds; packets with their direction; interface statistics at the end.
 *
 * Blocks are collected in a buffer. Results are 0 or -errno; after an error the file holds what was
 * written before. Threads: one.
 */

#include <stdint.h>

#define ONVM_PCAPNG_BUFFER_BYTES (256u << 10)

struct onvm_pcapng {
	int fd;
	uint32_t nb_bytes; /**< in the buffer */
	uint8_t *buffer;
};

/** Take @p fd, which stays the caller's to close, and begin a section. */
int onvm_pcapng_open(struct onvm_pcapng *file, int fd);
/** The next interface; they are numbered from 0 in this order. */
int onvm_pcapng_interface(struct onvm_pcapng *file, const char *name, uint32_t snap_length);
int onvm_pcapng_packet(struct onvm_pcapng *file, uint32_t interface, uint64_t ns,
		       const uint8_t *data, uint32_t captured, uint32_t length, int is_outbound);
int onvm_pcapng_statistics(struct onvm_pcapng *file, uint32_t interface, uint64_t ns,
			   uint64_t nb_received, uint64_t nb_dropped);
int onvm_pcapng_flush(struct onvm_pcapng *file);
void onvm_pcapng_free(struct onvm_pcapng *file);

#endif /* _ONVM_PCAPNG_H_ */
