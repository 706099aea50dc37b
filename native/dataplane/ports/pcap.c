/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port "pcap": reads a capture (pcap or pcapng, gzip or not) and writes one.
 *
 * Reading waits for the chain, so nothing is lost however slow the chain is. A packet that does not
 * fit a buffer, or that the capture has cut short, is counted as oversize and left out.
 */

#include "ports/kinds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <pcap/pcap.h>
#include <rte_cycles.h>
#include <rte_spinlock.h>
#include <zlib.h>

#define WRITE_BUFFER_BYTES (1u << 20)
#define ERROR_BYTES 256

struct pcap_port {
	pcap_t *source;
	uint32_t loops_left; /**< 0: forever */
	struct onvm_pace pace;
	char *rx_path;
	pcap_t *format; /**< a handle that only says what is written */
	pcap_dumper_t *sink;
	char *write_buffer;
	rte_spinlock_t tx_lock;
	/** Wall clock minus TSC, for the time stamps of written packets. */
	uint64_t tsc_begin;
	struct timespec wall_begin;
};

/* ---- gzip, or nothing: zlib reads both ---- */

static ssize_t
gzip_read(void *cookie, char *buffer, size_t length)
{
	return gzread(cookie, buffer, (unsigned int)length);
}

static int
gzip_close(void *cookie)
{
	return gzclose(cookie) == Z_OK ? 0 : -1;
}

static int
open_source(struct pcap_port *own, char *error, size_t error_size)
{
	const cookie_io_functions_t functions = {.read = gzip_read, .close = gzip_close};
	char reason[PCAP_ERRBUF_SIZE];
	gzFile archive = gzopen(own->rx_path, "rb");
	FILE *file;

	if (archive == NULL) {
		snprintf(error, error_size, "%s", strerror(errno));
		return -errno;
	}
	file = fopencookie(archive, "rb", functions);
	if (file == NULL) {
		gzclose(archive);
		return -ENOMEM;
	}
	own->source = pcap_fopen_offline(file, reason);
	if (own->source == NULL) {
		fclose(file);
		snprintf(error, error_size, "not a capture: %s", reason);
		return -EINVAL;
	}
	if (pcap_datalink(own->source) != DLT_EN10MB) {
		const char *name = pcap_datalink_val_to_name(pcap_datalink(own->source));

		snprintf(error, error_size, "link type %s (%d): expected Ethernet (EN10MB, 1)",
			 name == NULL ? "unknown" : name, pcap_datalink(own->source));
		pcap_close(own->source);
		own->source = NULL;
		return -EPROTONOSUPPORT;
	}
	return 0;
}

/** Next record of the capture, from its beginning again while loops are left. */
static const uint8_t *
next_record(struct pcap_port *own, struct pcap_pkthdr **header)
{
	char error[ERROR_BYTES];
	const uint8_t *data;

	for (int turn = 0; turn < 2 && own->source != NULL; turn++) {
		if (pcap_next_ex(own->source, header, &data) == 1)
			return data;
		/* The end, or a damaged record: nothing behind it can be trusted. */
		pcap_close(own->source);
		own->source = NULL;
		if (own->loops_left == 1)
			return NULL;
		if (own->loops_left != 0)
			own->loops_left--;
		if (open_source(own, error, sizeof(error)) != 0)
			return NULL;
	}
	return NULL;
}

static uint16_t
pcap_rx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb,
	struct onvm_rx_result *result)
{
	struct pcap_port *own = port->priv;
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	uint16_t nb_rx = 0;

	if (own->source == NULL) {
		__atomic_store_n(&port->is_finished, 1, __ATOMIC_RELEASE);
		return 0;
	}
	nb = onvm_pace_due(&own->pace, rte_rdtsc(), nb);
	for (uint16_t i = 0; i < nb; i++) {
		struct rte_mbuf *mbuf = rte_pktmbuf_alloc(port->pools[queue]);
		struct pcap_pkthdr *header;
		const uint8_t *data;

		if (mbuf == NULL)
			break;
		data = next_record(own, &header);
		if (data == NULL || header->caplen > room || header->caplen == 0) {
			rte_pktmbuf_free(mbuf);
			if (data == NULL)
				break;
			own->pace.nb_sent++;
			result->nb_oversize++;
			continue;
		}
		memcpy(rte_pktmbuf_mtod(mbuf, void *), data, header->caplen);
		mbuf->data_len = (uint16_t)header->caplen;
		mbuf->pkt_len = header->caplen;
		own->pace.nb_sent++;
		mbufs[nb_rx++] = mbuf;
	}
	if (own->source == NULL || own->pace.nb_sent >= own->pace.limit)
		__atomic_store_n(&port->is_finished, 1, __ATOMIC_RELEASE);
	return nb_rx;
}

static struct timeval
wall_time(const struct pcap_port *own, uint64_t tsc)
{
	const uint64_t ns =
		(uint64_t)((double)(tsc - own->tsc_begin) * 1e9 / (double)rte_get_tsc_hz()) +
		(uint64_t)own->wall_begin.tv_nsec;

	/* The sink writes nanoseconds: libpcap takes them in tv_usec. */
	return (struct timeval){
		.tv_sec = own->wall_begin.tv_sec + (time_t)(ns / 1000000000u),
		.tv_usec = (suseconds_t)(ns % 1000000000u),
	};
}

static uint16_t
pcap_tx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	struct pcap_port *own = port->priv;

	RTE_SET_USED(queue);
	if (own->sink != NULL) {
		const struct timeval now = wall_time(own, rte_rdtsc());

		rte_spinlock_lock(&own->tx_lock);
		for (uint16_t i = 0; i < nb; i++) {
			const struct pcap_pkthdr header = {.ts = now,
							   .caplen = mbufs[i]->data_len,
							   .len = mbufs[i]->pkt_len};

			pcap_dump((uint8_t *)own->sink, &header,
				  rte_pktmbuf_mtod(mbufs[i], const uint8_t *));
		}
		rte_spinlock_unlock(&own->tx_lock);
	}
	rte_pktmbuf_free_bulk(mbufs, nb);
	return nb;
}

static uint64_t
pcap_next_due(struct onvm_port *port, uint16_t queue)
{
	const struct pcap_port *own = port->priv;

	RTE_SET_USED(queue);
	return onvm_pace_next(&own->pace);
}

static void
pcap_port_close(struct onvm_port *port)
{
	struct pcap_port *own = port->priv;

	if (own->source != NULL)
		pcap_close(own->source);
	if (own->sink != NULL)
		pcap_dump_close(own->sink);
	if (own->format != NULL)
		pcap_close(own->format);
	free(own->write_buffer);
	free(own->rx_path);
	free(own);
}

static const struct onvm_port_ops pcap_ops = {
	.rx_burst = pcap_rx,
	.tx_burst = pcap_tx,
	.next_due = pcap_next_due,
	.close = pcap_port_close,
};

static int
open_sink(struct pcap_port *own, const char *path, char *error, size_t error_size)
{
	own->format = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, 262144,
							   PCAP_TSTAMP_PRECISION_NANO);
	own->sink = own->format == NULL ? NULL : pcap_dump_open(own->format, path);
	if (own->sink == NULL) {
		snprintf(error, error_size, "%s",
			 own->format == NULL ? "out of memory" : pcap_geterr(own->format));
		return -EIO;
	}
	own->write_buffer = malloc(WRITE_BUFFER_BYTES);
	if (own->write_buffer != NULL)
		setvbuf(pcap_dump_file(own->sink), own->write_buffer, _IOFBF, WRITE_BUFFER_BYTES);
	rte_spinlock_init(&own->tx_lock);
	own->tsc_begin = rte_rdtsc();
	clock_gettime(CLOCK_REALTIME, &own->wall_begin);
	return 0;
}

int
onvm_port_pcap_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		    char *error, size_t error_size)
{
	const struct onvm_pcap_options *options = kind_options;
	struct pcap_port *own = calloc(1, sizeof(*own));
	int rc = 0;

	if (own == NULL)
		return -ENOMEM;
	own->loops_left = options->loop;
	own->pace = (struct onvm_pace){
		.rate_pps = options->rate_pps,
		.limit = options->count == 0 ? UINT64_MAX : options->count,
		.hz = rte_get_tsc_hz(),
	};
	if (options->rx_path != NULL) {
		own->rx_path = strdup(options->rx_path);
		rc = own->rx_path == NULL ? -ENOMEM : open_source(own, error, error_size);
	}
	if (rc == 0 && options->tx_path != NULL)
		rc = open_sink(own, options->tx_path, error, error_size);
	port->priv = own;
	if (rc != 0) {
		pcap_port_close(port);
		port->priv = NULL;
		return rc;
	}
	port->ops = &pcap_ops;
	port->nb_queues = 1;
	port->can_wait = true;
	port->is_finished = options->rx_path == NULL;
	return 0;
}
