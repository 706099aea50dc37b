/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/pcap/pcapng.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Block types and options, draft-ietf-opsawg-pcapng sections 4.1 to 4.6. */
#define BLOCK_SECTION 0x0a0d0d0au
#define BLOCK_INTERFACE 1u
#define BLOCK_STATISTICS 5u
#define BLOCK_PACKET 6u
#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define LINKTYPE_ETHERNET 1u
#define OPTION_SECTION_APPLICATION 4u
#define OPTION_INTERFACE_NAME 2u
#define OPTION_INTERFACE_RESOLUTION 9u
#define OPTION_COMMENT 1u
#define OPTION_PACKET_FLAGS 2u
#define OPTION_PACKET_ID 5u
#define OPTION_STATISTICS_RECEIVED 4u
#define OPTION_STATISTICS_DROPPED 5u
#define FLAG_INBOUND 1u
#define FLAG_OUTBOUND 2u

#define COMMENT_MAX 64u
#define PACKET_OVERHEAD (64u + 16u + COMMENT_MAX)

int
onvm_write_all(int fd, const void *data, uint64_t nb_bytes)
{
	const uint8_t *const bytes = data;
	uint64_t nb_done = 0;

	while (nb_done < nb_bytes) {
		struct pollfd poller = {.fd = fd, .events = POLLOUT};
		const ssize_t nb = write(fd, bytes + nb_done, nb_bytes - nb_done);

		if (nb >= 0) {
			nb_done += (uint64_t)nb;
			continue;
		}
		if (errno == EAGAIN)
			poll(&poller, 1, -1);
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int
onvm_pcapng_flush(struct onvm_pcapng *file)
{
	int rc = 0;

	if (file->nb_bytes != 0)
		rc = file->write(file->context, file->buffer, file->nb_bytes);
	if (rc == 0)
		file->nb_bytes = 0;
	return rc;
}

static void
put(struct onvm_pcapng *file, const void *data, uint32_t nb_bytes)
{
	memcpy(file->buffer + file->nb_bytes, data, nb_bytes);
	file->nb_bytes += nb_bytes;
}

static void
put32(struct onvm_pcapng *file, uint32_t value)
{
	put(file, &value, sizeof(value));
}

/** Bytes and zeros up to a multiple of four. */
static void
put_padded(struct onvm_pcapng *file, const void *data, uint32_t nb_bytes)
{
	static const uint8_t zeros[4];

	put(file, data, nb_bytes);
	put(file, zeros, -nb_bytes & 3);
}

static void
put_option(struct onvm_pcapng *file, uint32_t code, const void *value, uint32_t nb_bytes)
{
	put32(file, code | nb_bytes << 16);
	put_padded(file, value, nb_bytes);
}

/** Begin a block whose length is not known yet. */
static int
block_begin(struct onvm_pcapng *file, uint32_t type, uint32_t nb_bytes_max, uint32_t *begin)
{
	if (file->nb_bytes + nb_bytes_max > ONVM_PCAPNG_BUFFER_BYTES) {
		const int rc = onvm_pcapng_flush(file);

		if (rc != 0)
			return rc;
	}
	*begin = file->nb_bytes;
	put32(file, type);
	put32(file, 0);
	return 0;
}

static void
block_end(struct onvm_pcapng *file, uint32_t begin)
{
	const uint32_t length = file->nb_bytes + 4 - begin;

	put32(file, length);
	memcpy(file->buffer + begin + 4, &length, 4);
}

int
onvm_pcapng_open(struct onvm_pcapng *file, onvm_pcapng_writer write, void *context)
{
	const uint64_t unknown = UINT64_MAX;
	uint32_t begin;

	file->write = write;
	file->context = context;
	file->nb_bytes = 0;
	file->buffer = malloc(ONVM_PCAPNG_BUFFER_BYTES);
	if (file->buffer == NULL)
		return -ENOMEM;
	block_begin(file, BLOCK_SECTION, PACKET_OVERHEAD, &begin);
	put32(file, BYTE_ORDER_MAGIC);
	put32(file, 1); /* version 1.0 */
	put(file, &unknown, sizeof(unknown));
	put_option(file, OPTION_SECTION_APPLICATION, "onvm", 4);
	put32(file, 0);
	block_end(file, begin);
	return 0;
}

int
onvm_pcapng_interface(struct onvm_pcapng *file, const char *name, uint32_t snap_length)
{
	const uint8_t nanoseconds = 9;
	const uint32_t name_length = (uint32_t)strnlen(name, 255);
	uint32_t begin;
	const int rc = block_begin(file, BLOCK_INTERFACE, PACKET_OVERHEAD + 256, &begin);

	if (rc != 0)
		return rc;
	put32(file, LINKTYPE_ETHERNET);
	put32(file, snap_length);
	put_option(file, OPTION_INTERFACE_NAME, name, name_length);
	put_option(file, OPTION_INTERFACE_RESOLUTION, &nanoseconds, 1);
	put32(file, 0);
	block_end(file, begin);
	return 0;
}

int
onvm_pcapng_packet(struct onvm_pcapng *file, uint32_t interface, uint64_t ns, const uint8_t *data,
		   uint32_t captured, uint32_t length, int is_outbound)
{
	return onvm_pcapng_sight(file, interface, ns, data, captured, length, is_outbound, 0, "");
}

int
onvm_pcapng_sight(struct onvm_pcapng *file, uint32_t interface, uint64_t ns, const uint8_t *data,
		  uint32_t captured, uint32_t length, int is_outbound, uint64_t number,
		  const char *comment)
{
	const uint32_t flags = is_outbound ? FLAG_OUTBOUND : FLAG_INBOUND;
	const uint32_t nb_comment = (uint32_t)strnlen(comment, COMMENT_MAX);
	uint32_t begin;
	const int rc = block_begin(file, BLOCK_PACKET, PACKET_OVERHEAD + captured, &begin);

	if (rc != 0)
		return rc;
	put32(file, interface);
	put32(file, (uint32_t)(ns >> 32));
	put32(file, (uint32_t)ns);
	put32(file, captured);
	put32(file, length);
	put_padded(file, data, captured);
	put_option(file, OPTION_PACKET_FLAGS, &flags, sizeof(flags));
	if (number != 0)
		put_option(file, OPTION_PACKET_ID, &number, sizeof(number));
	if (nb_comment != 0)
		put_option(file, OPTION_COMMENT, comment, nb_comment);
	put32(file, 0);
	block_end(file, begin);
	return 0;
}

int
onvm_pcapng_statistics(struct onvm_pcapng *file, uint32_t interface, uint64_t ns,
		       uint64_t nb_received, uint64_t nb_dropped)
{
	uint32_t begin;
	const int rc = block_begin(file, BLOCK_STATISTICS, PACKET_OVERHEAD, &begin);

	if (rc != 0)
		return rc;
	put32(file, interface);
	put32(file, (uint32_t)(ns >> 32));
	put32(file, (uint32_t)ns);
	put_option(file, OPTION_STATISTICS_RECEIVED, &nb_received, sizeof(nb_received));
	put_option(file, OPTION_STATISTICS_DROPPED, &nb_dropped, sizeof(nb_dropped));
	put32(file, 0);
	block_end(file, begin);
	return 0;
}

void
onvm_pcapng_free(struct onvm_pcapng *file)
{
	free(file->buffer);
	file->buffer = NULL;
}
