/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CAPTURE_FILE_H_
#define _ONVM_CAPTURE_FILE_H_

/**
 * @file
 * A capture that is written: pcap with nanoseconds, or pcapng; gzip or not.
 *
 * A regular file is written beside its name, as NAME.part, and gets its name when it is whole. So
 * what was there before stays until then, and for good if anything fails. Packets go out in pieces
 * that can be read by themselves (with gzip, each is a member), and a piece that cannot be written
 * is taken back. So the packets in the file and those counted as unwritten are all there were.
 * Pipes, devices and standard output are written as they are.
 *
 * Threads: one at a time; any may read `nb_unwritten`.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <zlib.h>

#include "ports/pcap/pcapng.h"

struct onvm_capture_file {
	struct onvm_pcapng pcapng; /**< its buffer holds pcap as well */
	bool is_pcapng, is_gzip;
	int fd;
	char *path, *part;     /**< part NULL: written as it is */
	uint64_t nb_bytes;     /**< of the file, up to the last whole piece */
	uint32_t nb_collected; /**< packets in the buffer */
	uint64_t nb_written;
	uint64_t nb_unwritten; /**< atomic */
	int error;	       /**< -errno of the first failure; nothing is written any more */
	z_stream deflater;
	uint8_t *compressed;
	uint32_t nb_compressed_max;
};

/**
 * @param path  "-": standard output
 * @return 0 or -errno
 */
int onvm_capture_file_open(struct onvm_capture_file *file, const char *path, bool is_pcapng,
			   bool is_gzip);
/** Add a packet that was seen @p ns nanoseconds after 1970. */
void onvm_capture_file_add(struct onvm_capture_file *file, uint64_t ns, const uint8_t *data,
			   uint32_t captured, uint32_t length);
/** Write what is collected. */
void onvm_capture_file_flush(struct onvm_capture_file *file);
/** The capture is whole: give the file its name. @return 0 or the first error, -errno */
int onvm_capture_file_finish(struct onvm_capture_file *file);
/** Close it, and free what belongs to it; what is not finished stays as NAME.part. */
void onvm_capture_file_close(struct onvm_capture_file *file);

#endif /* _ONVM_CAPTURE_FILE_H_ */
