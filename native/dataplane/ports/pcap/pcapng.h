/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PCAPNG_H_
#define _ONVM_PCAPNG_H_

/**
 * @file
 * Writing pcapng (draft-ietf-opsawg-pcapng).
 *
 * One section in the byte order of this host; one interface for each point, with its name and
 * timestamps in nanoseconds; packets with their direction; interface statistics at the end.
 *
 * Blocks are collected in a buffer, and go out in pieces of whole blocks. Results are 0 or -errno;
 * after an error the file holds what was written before. Threads: one.
 */

#include <stdint.h>

#define ONVM_PCAPNG_BUFFER_BYTES (256u << 10)

/** Writes whole blocks; @return 0 or -errno. */
typedef int (*onvm_pcapng_writer)(void *context, const void *data, uint32_t nb_bytes);

struct onvm_pcapng {
	onvm_pcapng_writer write;
	void *context;
	uint32_t nb_bytes; /**< in the buffer */
	uint8_t *buffer;
};

/** Write all of it to a file descriptor, waiting where it is not ready; @return 0 or -errno. */
int onvm_write_all(int fd, const void *data, uint64_t nb_bytes);

/** Begin a section. */
int onvm_pcapng_open(struct onvm_pcapng *file, onvm_pcapng_writer write, void *context);
/** The next interface; they are numbered from 0 in this order. */
int onvm_pcapng_interface(struct onvm_pcapng *file, const char *name, uint32_t snap_length);
int onvm_pcapng_packet(struct onvm_pcapng *file, uint32_t interface, uint64_t ns,
		       const uint8_t *data, uint32_t captured, uint32_t length, int is_outbound);
/** The same, of a packet that is seen at several points: with its number, and a comment or "". */
int onvm_pcapng_sight(struct onvm_pcapng *file, uint32_t interface, uint64_t ns,
		      const uint8_t *data, uint32_t captured, uint32_t length, int is_outbound,
		      uint64_t number, const char *comment);
int onvm_pcapng_statistics(struct onvm_pcapng *file, uint32_t interface, uint64_t ns,
			   uint64_t nb_received, uint64_t nb_dropped);
int onvm_pcapng_flush(struct onvm_pcapng *file);
void onvm_pcapng_free(struct onvm_pcapng *file);

#endif /* _ONVM_PCAPNG_H_ */
