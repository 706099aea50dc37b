/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Captures as the control thread runs them: start, drain into a file, stop.
 */

#include "control/captures.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_common.h>
#include <rte_cycles.h>

#include "control/publish.h"
#include "ports/capture.h"
#include "ports/pcap/pcapng.h"

#define SNAP_LENGTH_MAX 65535u

/** The reader's part of a capture, besides its rings. */
static struct reader {
	struct onvm_pcapng file;
	int fd;
	uint64_t tsc_begin;
	uint64_t ns_begin; /**< since 1970, at tsc_begin */
	uint64_t nb_written[ONVM_CAPTURE_POINTS_MAX];
} readers[ONVM_CAPTURES_MAX];

static uint64_t
to_ns(const struct reader *reader, uint64_t tsc)
{
	return reader->ns_begin + (uint64_t)(int64_t)((double)(int64_t)(tsc - reader->tsc_begin) *
						      onvm_dp.ns_per_cycle);
}

/** Tell the workers which kinds of points are wanted, and wait until they have seen it. */
static void
publish_kinds(struct onvm_dataplane *dp)
{
	uint32_t kinds = 0;

	for (uint32_t c = 0; c < ONVM_CAPTURES_MAX; c++)
		for (uint32_t i = 0;
		     dp->captures.list[c] != NULL && i < dp->captures.list[c]->nb_points; i++)
			kinds |= dp->captures.list[c]->points[i].kinds;
	__atomic_store_n(&dp->captures.kinds, kinds, __ATOMIC_RELEASE);
	onvm_publish(dp);
}

/** The point as workers compare it; kinds 0: there is no such port or NF host. */
static struct onvm_capture_point
point_of(const struct onvm_dataplane *dp, const struct onvm_dp_capture_point *wanted)
{
	struct onvm_capture_point point = {.id = (uint16_t)wanted->id};

	if (wanted->is_host) {
		if (wanted->id < ONVM_HOSTS_MAX && dp->links[0][wanted->id] != NULL)
			point.kinds = (uint8_t)((wanted->is_in ? ONVM_CAPTURE_TO_HOST : 0) |
						(wanted->is_out ? ONVM_CAPTURE_FROM_HOST : 0));
	} else if (wanted->id < ONVM_PORTS_MAX && dp->ports[wanted->id].state == ONVM_PORT_OPEN) {
		point.kinds = (uint8_t)((wanted->is_in ? ONVM_CAPTURE_PORT_IN : 0) |
					(wanted->is_out ? ONVM_CAPTURE_PORT_OUT : 0));
	}
	return point;
}

static int
write_blocks(void *context, const void *data, uint32_t nb_bytes)
{
	const struct reader *reader = context;

	return onvm_write_all(reader->fd, data, nb_bytes);
}

static int
open_file(struct reader *reader, const struct onvm_dp_capture_point *points, uint32_t nb_points,
	  uint32_t snap_length, int fd)
{
	struct timespec now;
	int rc;

	memset(reader, 0, sizeof(*reader));
	clock_gettime(CLOCK_REALTIME, &now);
	reader->tsc_begin = rte_rdtsc();
	reader->ns_begin = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	reader->fd = fd;
	rc = onvm_pcapng_open(&reader->file, write_blocks, reader);
	for (uint32_t i = 0; rc == 0 && i < nb_points; i++)
		rc = onvm_pcapng_interface(&reader->file, points[i].name, snap_length);
	return rc == 0 ? onvm_pcapng_flush(&reader->file) : rc;
}

/** Compile a filter for Ethernet frames; @return 0, or -EINVAL with the reason for the user. */
static int
compile(const char *text, struct bpf_program *program)
{
	pcap_t *pcap = pcap_open_dead(DLT_EN10MB, SNAP_LENGTH_MAX);
	int rc = 0;

	if (pcap == NULL)
		return onvm_fail(-ENOMEM, "filter: %s", strerror(ENOMEM));
	if (pcap_compile(pcap, program, text, 1, PCAP_NETMASK_UNKNOWN) != 0)
		rc = onvm_fail(-EINVAL, "%s", pcap_geterr(pcap));
	pcap_close(pcap);
	return rc;
}

int
onvm_dp_filter_match(const char *text, const uint8_t *frames, uint32_t frame_bytes,
		     uint32_t nb_frames, uint8_t *matches)
{
	struct bpf_program program;
	const int rc = compile(text, &program);

	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < nb_frames; i++)
		matches[i] = bpf_filter(program.bf_insns, frames + (uint64_t)i * frame_bytes,
					frame_bytes, frame_bytes) != 0;
	pcap_freecode(&program);
	return 0;
}

/** Let a capture choose packets, and follow up to @p nb_followed of them if that is not 0. */
static int
choose(struct onvm_capture *capture, const char *filter, uint32_t nb_followed)
{
	int rc;

	if (filter[0] != '\0') {
		capture->filter = calloc(1, sizeof(*capture->filter));
		if (capture->filter == NULL)
			return onvm_fail(-ENOMEM, "capture: %s", strerror(ENOMEM));
		rc = compile(filter, capture->filter);
		if (rc != 0) {
			free(capture->filter);
			capture->filter = NULL;
			return rc;
		}
	}
	if (nb_followed != 0) {
		capture->nb_numbers = onvm_dp.memory.nb_buffers;
		capture->nb_followed_max = nb_followed;
		capture->numbers = calloc(capture->nb_numbers, sizeof(*capture->numbers));
		if (capture->numbers == NULL)
			return onvm_fail(-ENOMEM, "capture: %s", strerror(ENOMEM));
	}
	return 0;
}

int
onvm_dp_capture_start(const struct onvm_dp_capture_point *points, uint32_t nb_points,
		      uint32_t snap_length, uint64_t limit, uint64_t ring_bytes, int fd,
		      const char *filter, uint32_t nb_followed)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_capture *capture;
	uint32_t id = 0;
	int rc;

	if (nb_points == 0 || nb_points > ONVM_CAPTURE_POINTS_MAX)
		return onvm_fail(-EINVAL, "capture: %u points: expected 1 to %u", nb_points,
				 ONVM_CAPTURE_POINTS_MAX);
	while (id < ONVM_CAPTURES_MAX && dp->captures.list[id] != NULL)
		id++;
	if (id == ONVM_CAPTURES_MAX)
		return onvm_fail(-ENOSPC, "capture: all %u are running", ONVM_CAPTURES_MAX);
	if (snap_length == 0 || snap_length > SNAP_LENGTH_MAX)
		snap_length = SNAP_LENGTH_MAX;
	capture = onvm_capture_create(dp->config.nb_workers, ring_bytes);
	if (capture == NULL)
		return onvm_fail(-ENOMEM, "capture: %s", strerror(ENOMEM));
	capture->snap_length = snap_length;
	capture->limit = limit == 0 ? UINT64_MAX : limit;
	capture->nb_points = nb_points;
	rc = choose(capture, filter, nb_followed);
	if (rc != 0) {
		onvm_capture_free(capture);
		return rc;
	}
	for (uint32_t i = 0; i < nb_points; i++) {
		capture->points[i] = point_of(dp, &points[i]);
		if (capture->points[i].kinds != 0)
			continue;
		onvm_capture_free(capture);
		return onvm_fail(-ENOENT, "capture: %s: there is no such %s", points[i].name,
				 points[i].is_host ? "NF host" : "port");
	}
	rc = open_file(&readers[id], points, nb_points, snap_length, fd);
	if (rc != 0) {
		onvm_pcapng_free(&readers[id].file);
		onvm_capture_free(capture);
		return onvm_fail(rc, "capture file: %s", strerror(-rc));
	}
	/* P1: pairs with the acquire loads P2 in ports/capture.c. */
	__atomic_store_n(&dp->captures.list[id], capture, __ATOMIC_RELEASE);
	publish_kinds(dp);
	return (int)id;
}

static int
find(uint32_t id, struct onvm_capture **capture)
{
	*capture = id < ONVM_CAPTURES_MAX ? onvm_dp.captures.list[id] : NULL;
	return *capture != NULL ? 0 : onvm_fail(-ENOENT, "there is no capture %u", id);
}

/** Write the copies that are in the rings now, not later ones: the call must end. */
static int
drain(struct onvm_capture *capture, struct reader *reader)
{
	const uint64_t until = rte_rdtsc();
	const struct onvm_capture_record *record;
	int nb_written = 0;
	uint32_t ring;

	while ((record = onvm_capture_peek(capture, &ring)) != NULL && record->tsc <= until) {
		char verdict[32] = "";
		int rc;

		if (record->number != 0 && record->verdict_stage != ONVM_CAPTURE_NO_VERDICT)
			snprintf(verdict, sizeof(verdict), "verdict %u %u stage %u",
				 record->verdict_stage & 15u, record->destination,
				 record->verdict_stage >> 4u);
		rc = onvm_pcapng_sight(&reader->file, record->point, to_ns(reader, record->tsc),
				       (const uint8_t *)(record + 1), record->captured,
				       record->length, record->is_outbound, record->number,
				       verdict);

		if (rc != 0)
			return onvm_fail(rc, "capture file: %s", strerror(-rc));
		reader->nb_written[record->point]++;
		nb_written++;
		onvm_capture_next(capture, ring);
	}
	if (nb_written != 0) {
		const int rc = onvm_pcapng_flush(&reader->file);

		if (rc != 0)
			return onvm_fail(rc, "capture file: %s", strerror(-rc));
	}
	return nb_written;
}

int
onvm_dp_capture_drain(uint32_t id)
{
	struct onvm_capture *capture;
	const int rc = find(id, &capture);

	return rc != 0 ? rc : drain(capture, &readers[id]);
}

static void
read_capture(const struct onvm_capture *capture, const struct reader *reader,
	     struct onvm_dp_capture_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	for (uint32_t w = 0; w < capture->nb_rings; w++) {
		stats->captured += capture->rings[w].nb_captured;
		stats->overflow += capture->rings[w].nb_overflow;
	}
	for (uint32_t i = 0; i < capture->nb_points; i++)
		stats->written += reader->nb_written[i];
	stats->followed = RTE_MIN(__atomic_load_n(&capture->nb_followed, __ATOMIC_RELAXED),
				  capture->nb_followed_max);
	stats->is_full = __atomic_load_n(&capture->nb_taken, __ATOMIC_RELAXED) >= capture->limit;
}

int
onvm_dp_read_capture(uint32_t id, struct onvm_dp_capture_stats *stats)
{
	struct onvm_capture *capture;
	const int rc = find(id, &capture);

	if (rc == 0)
		read_capture(capture, &readers[id], stats);
	return rc;
}

int
onvm_dp_capture_stop(uint32_t id, struct onvm_dp_capture_stats *last)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct reader *reader = &readers[id < ONVM_CAPTURES_MAX ? id : 0];
	struct onvm_dp_capture_stats stats;
	struct onvm_capture *capture;
	int rc = find(id, &capture);

	if (rc != 0)
		return rc;
	/* No worker begins a copy after this; publishing waits for those that are copying. */
	__atomic_store_n(&dp->captures.list[id], NULL, __ATOMIC_RELEASE);
	publish_kinds(dp);
	rc = drain(capture, reader);
	read_capture(capture, reader, &stats);
	for (uint32_t i = 0; rc >= 0 && i < capture->nb_points; i++)
		rc = onvm_pcapng_statistics(&reader->file, i, to_ns(reader, rte_rdtsc()),
					    reader->nb_written[i], i == 0 ? stats.overflow : 0);
	if (rc >= 0)
		rc = onvm_pcapng_flush(&reader->file);
	if (last != NULL)
		*last = stats;
	onvm_pcapng_free(&reader->file);
	onvm_capture_free(capture);
	return rc < 0 ? onvm_fail(rc, "capture file: %s", strerror(-rc)) : 0;
}

void
onvm_captures_free(struct onvm_dataplane *dp)
{
	for (uint32_t id = 0; id < ONVM_CAPTURES_MAX; id++) {
		if (dp->captures.list[id] == NULL)
			continue;
		onvm_capture_free(dp->captures.list[id]);
		onvm_pcapng_free(&readers[id].file);
		dp->captures.list[id] = NULL;
	}
}
