/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port "pcap": reads a capture (pcap or pcapng, gzip or not) and writes one.
 *
 * Reading waits for the chain, so nothing is lost however slow the chain is. A packet that does not
 * fit a buffer, or that the capture has cut short, is counted as oversize and left out.
 *
 * A packet keeps the time that the capture says, in a field of its mbuf, and is written with it.
 * Packets without one, which NFs have made or which came from elsewhere, are stamped with the time
 * of the last that had one, or else with now.
 */

#include "ports/kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <pcap/pcap.h>
#include <rte_cycles.h>
#include <rte_spinlock.h>
#include <zlib.h>

#include "ports/packet_time.h"
#include "ports/pcap/capture_file.h"

#define ERROR_BYTES 256
/** A reader at the other end of a pipe waits no longer than this for packets. */
#define FLUSH_NS 200000000u
#define NS_IN_S 1000000000u

struct pcap_port {
	pcap_t *source;
	uint32_t loops_left; /**< 0: forever */
	struct onvm_pace pace;
	char *rx_path;
	bool may_be_cut;
	/** The record that comes next, read ahead if the pace is the capture's. */
	const uint8_t *next;
	struct pcap_pkthdr *next_header;
	double speed; /**< times the capture's own pace; 0: pace counts */
	bool has_first;
	uint64_t first_ns, begin_tsc; /**< of the first record, and when it came */
	bool has_sink;
	struct onvm_capture_file sink;
	rte_spinlock_t tx_lock;
	/** Wall clock minus TSC, for packets without a time. */
	uint64_t tsc_begin, ns_begin;
	bool has_last;
	uint64_t last_ns; /**< the time of the last packet that had one */
	uint64_t flushed_tsc;
};

static void
fail(struct onvm_port *port, const char *reason)
{
	if (port->has_fault)
		return;
	snprintf(port->fault, sizeof(port->fault), "%s", reason);
	/* Pairs with the acquire load in onvm_dp_read_port(). */
	__atomic_store_n(&port->has_fault, 1, __ATOMIC_RELEASE);
}

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
	const bool is_stdin = strcmp(own->rx_path, "-") == 0;
	gzFile archive = is_stdin ? gzdopen(dup(STDIN_FILENO), "rb") : gzopen(own->rx_path, "rb");
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
	own->source =
		pcap_fopen_offline_with_tstamp_precision(file, PCAP_TSTAMP_PRECISION_NANO, reason);
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
next_record(struct onvm_port *port, struct pcap_pkthdr **header)
{
	struct pcap_port *own = port->priv;
	char error[ERROR_BYTES];
	const uint8_t *data;

	for (int turn = 0; turn < 2 && own->source != NULL; turn++) {
		const int rc = pcap_next_ex(own->source, header, &data);

		if (rc == 1)
			return data;
		/* The end, or a damaged record: nothing behind it can be trusted. */
		if (rc == PCAP_ERROR && !own->may_be_cut)
			fail(port, pcap_geterr(own->source));
		pcap_close(own->source);
		own->source = NULL;
		own->has_first = false; /* the pace begins again */
		if (own->loops_left == 1 || port->has_fault)
			return NULL;
		if (own->loops_left != 0)
			own->loops_left--;
		if (open_source(own, error, sizeof(error)) != 0)
			return NULL;
	}
	return NULL;
}

static uint64_t
ns_of(const struct timeval *time)
{
	/* Asked for nanoseconds, libpcap has them in tv_usec. */
	return (uint64_t)time->tv_sec * NS_IN_S + (uint64_t)time->tv_usec;
}

/** TSC at which the record that comes next is due, at the pace of the capture. */
static uint64_t
due_tsc(const struct pcap_port *own)
{
	const uint64_t ns = ns_of(&own->next_header->ts);
	const double behind = ns < own->first_ns ? 0 : (double)(ns - own->first_ns);

	return own->begin_tsc +
	       (uint64_t)(behind / own->speed * (double)own->pace.hz / (double)NS_IN_S);
}

/** The record that is due, or NULL; it stays the next one until it is taken. */
static const uint8_t *
due_record(struct onvm_port *port, struct pcap_pkthdr **header)
{
	struct pcap_port *own = port->priv;

	if (own->next == NULL) {
		own->next = next_record(port, &own->next_header);
		if (own->next == NULL)
			return NULL;
		if (!own->has_first) {
			own->has_first = true;
			own->first_ns = ns_of(&own->next_header->ts);
			own->begin_tsc = rte_rdtsc();
		}
	}
	if (own->speed != 0 && due_tsc(own) > rte_rdtsc())
		return NULL;
	*header = own->next_header;
	return own->next;
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
		struct pcap_pkthdr *header;
		struct rte_mbuf *mbuf;
		const uint8_t *data = due_record(port, &header);

		if (data == NULL)
			break;
		mbuf = rte_pktmbuf_alloc(port->pools[queue]);
		if (mbuf == NULL)
			break;
		own->next = NULL;
		own->pace.nb_sent++;
		if (header->caplen > room || header->caplen == 0) {
			rte_pktmbuf_free(mbuf);
			result->nb_oversize++;
			continue;
		}
		memcpy(rte_pktmbuf_mtod(mbuf, void *), data, header->caplen);
		mbuf->data_len = (uint16_t)header->caplen;
		mbuf->pkt_len = header->caplen;
		onvm_packet_set_time(mbuf, ns_of(&header->ts));
		mbufs[nb_rx++] = mbuf;
	}
	if (own->source == NULL || own->pace.nb_sent >= own->pace.limit)
		__atomic_store_n(&port->is_finished, 1, __ATOMIC_RELEASE);
	return nb_rx;
}

/* ---- the capture that is written ---- */

static uint64_t
time_of(struct pcap_port *own, struct rte_mbuf *mbuf, uint64_t tsc)
{
	if (onvm_packet_has_time(mbuf)) {
		own->last_ns = onvm_packet_time(mbuf);
		own->has_last = true;
	}
	if (own->has_last)
		return own->last_ns;
	return own->ns_begin +
	       (uint64_t)((double)(tsc - own->tsc_begin) * (double)NS_IN_S / (double)own->pace.hz);
}

/** Note the first failure of the sink; with the lock. */
static void
check_sink(struct onvm_port *port)
{
	const struct pcap_port *own = port->priv;
	const struct onvm_capture_file *file = &own->sink;
	char text[ONVM_PORT_FAULT_BYTES];

	if (file->error == 0)
		return;
	if (file->part == NULL)
		snprintf(text, sizeof(text), "%s", strerror(-file->error));
	else
		snprintf(text, sizeof(text), "%s; %.80s has %" PRIu64 " packets",
			 strerror(-file->error), strrchr(file->part, '/') + 1, file->nb_written);
	fail(port, text);
}

/** Write what is collected, if that was not done for a while; with the lock. */
static void
flush_sink(struct onvm_port *port, uint64_t now)
{
	struct pcap_port *own = port->priv;

	if (now - own->flushed_tsc < own->pace.hz / (NS_IN_S / FLUSH_NS))
		return;
	onvm_capture_file_flush(&own->sink);
	own->flushed_tsc = now;
	check_sink(port);
}

static uint16_t
pcap_tx(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	struct pcap_port *own = port->priv;

	RTE_SET_USED(queue);
	if (own->has_sink) {
		const uint64_t now = rte_rdtsc();

		rte_spinlock_lock(&own->tx_lock);
		for (uint16_t i = 0; i < nb; i++)
			onvm_capture_file_add(&own->sink, time_of(own, mbufs[i], now),
					      rte_pktmbuf_mtod(mbufs[i], const uint8_t *),
					      mbufs[i]->data_len, mbufs[i]->pkt_len);
		flush_sink(port, now);
		rte_spinlock_unlock(&own->tx_lock);
	}
	rte_pktmbuf_free_bulk(mbufs, nb);
	return nb;
}

static void
pcap_read(struct onvm_port *port, struct onvm_port_losses *losses, bool *is_down)
{
	struct pcap_port *own = port->priv;

	RTE_SET_USED(is_down);
	if (!own->has_sink)
		return;
	rte_spinlock_lock(&own->tx_lock);
	if (own->sink.fd >= 0)
		flush_sink(port, rte_rdtsc());
	losses->nb_unwritten = own->sink.nb_unwritten;
	rte_spinlock_unlock(&own->tx_lock);
}

static void
pcap_finish(struct onvm_port *port)
{
	struct pcap_port *own = port->priv;

	if (!own->has_sink || own->sink.fd < 0)
		return;
	rte_spinlock_lock(&own->tx_lock);
	(void)onvm_capture_file_finish(&own->sink);
	check_sink(port);
	rte_spinlock_unlock(&own->tx_lock);
}

static uint64_t
pcap_next_due(struct onvm_port *port, uint16_t queue)
{
	const struct pcap_port *own = port->priv;

	RTE_SET_USED(queue);
	if (own->speed != 0)
		return own->next == NULL ? 0 : due_tsc(own);
	return onvm_pace_next(&own->pace);
}

static void
pcap_port_close(struct onvm_port *port)
{
	struct pcap_port *own = port->priv;

	if (own->source != NULL)
		pcap_close(own->source);
	if (own->has_sink)
		onvm_capture_file_close(&own->sink);
	free(own->rx_path);
	free(own);
}

static const struct onvm_port_ops pcap_ops = {
	.rx_burst = pcap_rx,
	.tx_burst = pcap_tx,
	.next_due = pcap_next_due,
	.read = pcap_read,
	.finish = pcap_finish,
	.close = pcap_port_close,
};

static int
open_sink(struct pcap_port *own, const struct onvm_pcap_options *options)
{
	struct timespec now;
	const int rc = onvm_capture_file_open(&own->sink, options->tx_path, options->is_pcapng,
					      options->is_gzip);

	own->has_sink = rc == 0;
	rte_spinlock_init(&own->tx_lock);
	own->tsc_begin = own->flushed_tsc = rte_rdtsc();
	clock_gettime(CLOCK_REALTIME, &now);
	own->ns_begin = (uint64_t)now.tv_sec * NS_IN_S + (uint64_t)now.tv_nsec;
	return rc;
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
	port->priv = own;
	rc = onvm_packet_time_register();
	if (rc != 0) {
		pcap_port_close(port);
		port->priv = NULL;
		return rc;
	}
	own->loops_left = options->loop;
	own->may_be_cut = options->may_be_cut;
	own->speed = options->speed;
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
		rc = open_sink(own, options);
	if (rc != 0) {
		pcap_port_close(port);
		port->priv = NULL;
		return rc;
	}
	port->ops = &pcap_ops;
	port->nb_queues = 1;
	port->can_wait = true;
	port->has_times = options->rx_path != NULL;
	port->is_finished = options->rx_path == NULL;
	return 0;
}
