/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: one thread is an NF host whose manager has gone, so that it does not wait forever.
 *  - with room in the ring to the worker, packets are in it at once
 *  - without, the host counts turns while it waits: its manager must not take it for hung
 */
#include <sys/socket.h>
#include <unistd.h>

#include "../nf/burst.h"
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

int
main(void)
{
	RUN(test_packets_find_room);
	RUN(test_host_that_waits_for_room_counts_turns);
	return 0;
}
