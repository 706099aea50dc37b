/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: one thread is an NF host whose manager has gone, so that it does not wait forever.
 *  - with room in the ring to the worker, packets are in it at once
 *  - without, the host counts turns while it waits: its manager must not take it for hung
 *  - packets that a stage holds are in no ring; released ones pass the stages behind it in the order
 *    of their direction, and go back to the worker that they came from
 */
#include <sys/socket.h>
#include <unistd.h>

#include "../nf/burst.h"
#include "../nf/held.h"
#include "../nf/runtime.h"

#include "test.h"

#define LENGTH 64
#define NB_MADE 8

static struct onvm_nf_host *host;

static void
set_up(uint32_t nb_filled)
{
	struct onvm_desc descs[LENGTH] = {0};
	struct onvm_ring *ring;
	int sockets[2];

	host = aligned_alloc(128, (sizeof(*host) + 127) & ~(size_t)127);
	CHECK(host != NULL);
	memset(host, 0, sizeof(*host));
	host->control = aligned_alloc(128, sizeof(*host->control));
	host->area = aligned_alloc(128, onvm_ring_bytes(LENGTH));
	CHECK(host->control != NULL && host->area != NULL);
	memset(host->control, 0, sizeof(*host->control));
	memset(host->area, 0, onvm_ring_bytes(LENGTH));
	CHECK_EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
	close(sockets[1]);
	host->socket = sockets[0];
	host->reply.nb_workers = 1;
	host->nb_originated = NB_MADE;
	ring = &host->links[0].from_nf;
	onvm_ring_init(ring, host->area, LENGTH);
	CHECK_EQUAL(onvm_ring_enqueue_burst(ring, descs, nb_filled), nb_filled);
}

static void
tear_down(void)
{
	close(host->socket);
	free(host->area);
	free(host->control);
	free(host);
}

static void
test_packets_find_room(void)
{
	set_up(LENGTH - NB_MADE);
	onvm_burst_return_originated(host);
	CHECK_EQUAL(host->control->loops, 0);
	CHECK_EQUAL(onvm_ring_free_count(&host->links[0].from_nf, LENGTH), 0);
	tear_down();
}

static void
test_host_that_waits_for_room_counts_turns(void)
{
	set_up(LENGTH - NB_MADE + 1);
	onvm_burst_return_originated(host);
	CHECK(host->control->loops > 0);
	tear_down();
}

/* ---- held packets ---- */

#define NB_STAGES 3
#define NB_WORKERS 2

static uint8_t *areas[NB_WORKERS][2];
static struct onvm_ring to_nf[NB_WORKERS], from_nf[NB_WORKERS]; /* the worker's ends */
static uint32_t nb_seen[NB_STAGES];

/* Each stage counts; the middle one holds those with an odd length, as long as it may. */
static void
hold_odd(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	const uint32_t index = ((struct onvm_stage *)ctx->runtime)->index;

	nb_seen[index] += nb_pkts;
	for (uint32_t i = 0; i < nb_pkts; i++)
		if (index == 1 && pkts[i].length % 2 != 0)
			ctx->hold(ctx, &pkts[i]);
}

static void
set_up_stages(void)
{
	set_up(0);
	host->nb_originated = 0;
	host->burst_size = 4; /* so that more than one burst is released */
	host->nb_stages = NB_STAGES;
	host->holds = true;
	host->reply.nb_workers = NB_WORKERS;
	host->reply.nb_buffers = host->reply.first_large = 64;
	host->reply.buffer_stride = 256;
	host->memory = calloc(64, 256);
	for (uint32_t worker = 0; worker < NB_WORKERS; worker++) {
		for (int ring = 0; ring < 2; ring++) {
			areas[worker][ring] = aligned_alloc(128, onvm_ring_bytes(LENGTH));
			memset(areas[worker][ring], 0, onvm_ring_bytes(LENGTH));
		}
		onvm_ring_init(&host->links[worker].to_nf, areas[worker][0], LENGTH);
		onvm_ring_init(&host->links[worker].from_nf, areas[worker][1], LENGTH);
		onvm_ring_init(&to_nf[worker], areas[worker][0], LENGTH);
		onvm_ring_init(&from_nf[worker], areas[worker][1], LENGTH);
	}
	for (uint32_t i = 0; i < NB_STAGES; i++) {
		struct onvm_stage *stage = &host->stages[i];

		nb_seen[i] = 0;
		stage->kernel = hold_odd;
		stage->host = host;
		stage->index = i;
		stage->held = i == 1 ? onvm_held_create(16) : NULL;
		stage->ctx = (struct onvm_ctx){.runtime = stage,
					       .hold = onvm_ctx_hold,
					       .held_packets = stage->held};
	}
}

static void
tear_down_stages(void)
{
	for (uint32_t worker = 0; worker < NB_WORKERS; worker++)
		for (int ring = 0; ring < 2; ring++)
			free(areas[worker][ring]);
	onvm_held_free(host->stages[1].held);
	free(host->memory);
	tear_down();
}

static uint32_t
returned(uint32_t worker, struct onvm_desc *descs)
{
	return onvm_ring_dequeue_burst(&from_nf[worker], descs, LENGTH);
}

static void
test_held_packets_come_back_when_released(void)
{
	struct onvm_desc descs[LENGTH];

	set_up_stages();
	for (uint32_t i = 0; i < 16; i++) {
		const struct onvm_desc desc = {.buffer = i,
					       .offset = 64,
					       .length = (uint16_t)(60 + i % 2),
					       .flags = i % 4 == 1 ? ONVM_F_REVERSE : 0};

		onvm_ring_enqueue_burst(&to_nf[i / 8], &desc, 1);
	}
	host->burst_size = 8;
	for (uint32_t worker = 0; worker < NB_WORKERS; worker++) {
		onvm_burst_process(host, worker, onvm_burst_ready(host, worker));
		CHECK_EQUAL(returned(worker, descs), 4);
		for (uint32_t i = 0; i < 4; i++) {
			CHECK_EQUAL(descs[i].length, 60);
			CHECK_EQUAL(descs[i].verdict_stage, (NB_STAGES - 1) << 4);
		}
	}
	host->burst_size = 3;
	CHECK_EQUAL(onvm_held_count(host->stages[1].held), 8);
	CHECK_EQUAL(onvm_burst_return_released(host), 0);
	CHECK_EQUAL(nb_seen[0], 12); /* four of the held ones came from the other side */
	CHECK_EQUAL(nb_seen[2], 12);
	onvm_held_release_all(host->stages[1].held);
	CHECK_EQUAL(onvm_burst_return_released(host), 8);
	CHECK_EQUAL(nb_seen[0], 16);
	CHECK_EQUAL(nb_seen[1], 16);
	CHECK_EQUAL(nb_seen[2], 16);
	for (uint32_t worker = 0; worker < NB_WORKERS; worker++) {
		CHECK_EQUAL(returned(worker, descs), 4);
		for (uint32_t i = 0; i < 4; i++) {
			CHECK_EQUAL(descs[i].buffer / 8, worker);
			CHECK_EQUAL(descs[i].length, 61);
			CHECK_EQUAL(descs[i].verdict_stage >> 4,
				    descs[i].flags & ONVM_F_REVERSE ? 0 : NB_STAGES - 1);
		}
	}
	tear_down_stages();
}

static void
test_a_released_packet_may_leave_at_its_stage(void)
{
	struct onvm_desc desc = {.buffer = 3, .offset = 64, .length = 61};

	set_up_stages();
	onvm_ring_enqueue_burst(&to_nf[0], &desc, 1);
	onvm_burst_process(host, 0, onvm_burst_ready(host, 0));
	CHECK_EQUAL(returned(0, &desc), 0);
	CHECK_EQUAL(onvm_held_release(host->stages[1].held, 1 << 16, ONVM_DROP, 5), 0);
	CHECK_EQUAL(onvm_burst_return_released(host), 1);
	CHECK_EQUAL(returned(0, &desc), 1);
	CHECK_EQUAL(desc.verdict_stage, 1 << 4 | ONVM_DROP);
	CHECK_EQUAL(desc.port, 5);
	CHECK_EQUAL(nb_seen[2], 0);
	tear_down_stages();
}

int
main(void)
{
	RUN(test_packets_find_room);
	RUN(test_host_that_waits_for_room_counts_turns);
	RUN(test_held_packets_come_back_when_released);
	RUN(test_a_released_packet_may_leave_at_its_stage);
	return 0;
}
