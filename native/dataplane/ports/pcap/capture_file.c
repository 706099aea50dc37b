/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/pcap/capture_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SNAP_LENGTH 262144u
/* draft-ietf-opsawg-pcap: a magic number for nanoseconds, version 2.4, Ethernet. */
#define PCAP_MAGIC 0xa1b23c4du
#define PCAP_VERSION (2u | 4u << 16)
#define PCAP_ETHERNET 1u
#define NS_IN_S 1000000000u
#define GZIP_WINDOW (15 + 16) /* zlib: the largest, with the header of gzip */

/* ---- pieces ---- */

/** Compress a piece into a member of its own. */
static int
compress_piece(struct onvm_capture_file *file, const void **data, uint32_t *nb_bytes)
{
	file->deflater.next_in = (Bytef *)(uintptr_t)*data;
	file->deflater.avail_in = *nb_bytes;
	file->deflater.next_out = file->compressed;
	file->deflater.avail_out = file->nb_compressed_max;
	if (deflate(&file->deflater, Z_FINISH) != Z_STREAM_END)
		return -EIO;
	*data = file->compressed;
	*nb_bytes = file->nb_compressed_max - file->deflater.avail_out;
	return deflateReset(&file->deflater) == Z_OK ? 0 : -EIO;
}

static int
write_piece(void *context, const void *data, uint32_t nb_bytes)
{
	struct onvm_capture_file *file = context;
	int rc = file->is_gzip ? compress_piece(file, &data, &nb_bytes) : 0;

	if (rc == 0)
		rc = onvm_write_all(file->fd, data, nb_bytes);
	if (rc == 0) {
		file->nb_bytes += nb_bytes;
		file->nb_written += file->nb_collected;
		file->nb_collected = 0;
		return 0;
	}
	/* Take back what was written of the piece; a pipe cannot. */
	if (file->part != NULL && ftruncate(file->fd, (off_t)file->nb_bytes) == 0)
		(void)lseek(file->fd, (off_t)file->nb_bytes, SEEK_SET);
	return rc;
}

/** The first failure is the last write: what is collected is lost. */
static void
fail(struct onvm_capture_file *file, int error, uint32_t nb_more)
{
	if (file->error == 0)
		file->error = error;
	__atomic_store_n(&file->nb_unwritten, file->nb_unwritten + file->nb_collected + nb_more,
			 __ATOMIC_RELAXED);
	file->nb_collected = 0;
}

void
onvm_capture_file_flush(struct onvm_capture_file *file)
{
	const int rc = file->error == 0 ? onvm_pcapng_flush(&file->pcapng) : 0;

	if (rc != 0)
		fail(file, rc, 0);
}

/* ---- packets ---- */

/** A record of pcap, in the buffer that pcapng has. */
static int
add_record(struct onvm_capture_file *file, uint64_t ns, const uint8_t *data, uint32_t captured,
	   uint32_t length)
{
	const uint32_t header[4] = {(uint32_t)(ns / NS_IN_S), (uint32_t)(ns % NS_IN_S), captured,
				    length};
	struct onvm_pcapng *out = &file->pcapng;
	int rc = 0;

	if (out->nb_bytes + sizeof(header) + captured > ONVM_PCAPNG_BUFFER_BYTES)
		rc = onvm_pcapng_flush(out);
	if (rc != 0)
		return rc;
	memcpy(out->buffer + out->nb_bytes, header, sizeof(header));
	memcpy(out->buffer + out->nb_bytes + sizeof(header), data, captured);
	out->nb_bytes += (uint32_t)sizeof(header) + captured;
	return 0;
}

void
onvm_capture_file_add(struct onvm_capture_file *file, uint64_t ns, const uint8_t *data,
		      uint32_t captured, uint32_t length)
{
	int rc = file->error;

	if (rc == 0)
		rc = file->is_pcapng ?
			     onvm_pcapng_packet(&file->pcapng, 0, ns, data, captured, length, 1) :
			     add_record(file, ns, data, captured, length);
	if (rc == 0)
		file->nb_collected++;
	else
		fail(file, rc, 1);
}

/* ---- the file ---- */

static int
begin(struct onvm_capture_file *file)
{
	const uint32_t header[6] = {PCAP_MAGIC, PCAP_VERSION, 0, 0, SNAP_LENGTH, PCAP_ETHERNET};
	int rc = onvm_pcapng_open(&file->pcapng, write_piece, file);

	if (rc == 0 && file->is_pcapng)
		rc = onvm_pcapng_interface(&file->pcapng, "out", SNAP_LENGTH);
	if (rc == 0 && !file->is_pcapng) {
		memcpy(file->pcapng.buffer, header, sizeof(header));
		file->pcapng.nb_bytes = sizeof(header);
	}
	return rc == 0 ? onvm_pcapng_flush(&file->pcapng) : rc;
}

static int
begin_gzip(struct onvm_capture_file *file)
{
	if (deflateInit2(&file->deflater, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	file->nb_compressed_max = (uint32_t)deflateBound(&file->deflater, ONVM_PCAPNG_BUFFER_BYTES);
	file->compressed = malloc(file->nb_compressed_max);
	return file->compressed == NULL ? -ENOMEM : 0;
}

/** Open a regular file beside its name, or what is no regular file as it is. */
static int
open_path(struct onvm_capture_file *file, const char *path)
{
	struct stat status;
	const bool exists = stat(path, &status) == 0;

	if (exists && !S_ISREG(status.st_mode)) {
		file->fd = open(path, O_WRONLY | O_CLOEXEC);
		return file->fd < 0 ? -errno : 0;
	}
	/* A link stays one: the file that it leads to is replaced. */
	file->path = exists ? realpath(path, NULL) : strdup(path);
	if (file->path == NULL || asprintf(&file->part, "%s.part", file->path) < 0)
		return -ENOMEM;
	file->fd = open(file->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (file->fd < 0)
		return -errno;
	if (exists)
		(void)fchmod(file->fd, status.st_mode & 07777);
	return 0;
}

int
onvm_capture_file_open(struct onvm_capture_file *file, const char *path, bool is_pcapng,
		       bool is_gzip)
{
	int rc = 0;

	memset(file, 0, sizeof(*file));
	file->fd = -1;
	file->is_pcapng = is_pcapng;
	file->is_gzip = is_gzip;
	if (strcmp(path, "-") == 0) {
		file->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
		rc = file->fd < 0 ? -errno : 0;
	} else {
		rc = open_path(file, path);
	}
	if (rc == 0 && is_gzip)
		rc = begin_gzip(file);
	if (rc == 0)
		rc = begin(file);
	if (rc != 0) {
		if (file->part != NULL && file->fd >= 0)
			(void)unlink(file->part);
		onvm_capture_file_close(file);
	}
	return rc;
}

int
onvm_capture_file_finish(struct onvm_capture_file *file)
{
	onvm_capture_file_flush(file);
	if (file->fd >= 0 && close(file->fd) != 0 && file->error == 0)
		file->error = -errno;
	file->fd = -1;
	if (file->error == 0 && file->part != NULL && rename(file->part, file->path) != 0)
		file->error = -errno;
	return file->error;
}

void
onvm_capture_file_close(struct onvm_capture_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
	if (file->compressed != NULL || file->nb_compressed_max != 0)
		deflateEnd(&file->deflater);
	free(file->compressed);
	free(file->path);
	free(file->part);
	onvm_pcapng_free(&file->pcapng);
	file->compressed = NULL;
	file->nb_compressed_max = 0;
	file->path = file->part = NULL;
}
