/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: departures of random peers, sockets, sizes and flows. Every one is in exactly one train, a
 * train has one peer, socket, type of service and size and fits into an IP packet, packets of a flow
 * keep their order, and packets that are alike make full trains. Then trains go over loopback: what
 * comes in is what went out, merged or not; and a train that cannot be cut, because its datagrams need
 * fragments, goes out all the same.
 */
#include "peers/trains.h"

#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "peers/sockets.h"
#include "test.h"

#define PORT 47900
#define ROUNDS 300

static struct onvm_timetable table;
static struct onvm_departure departures[ONVM_PENDING_MAX];
static struct onvm_train_limits limits;

static void
check_train(const struct onvm_train *train, bool *is_seen, uint16_t *order, uint16_t number)
{
	uint16_t i = train->first;

	CHECK(train->nb >= 1 && train->nb <= ONVM_TRAIN_MAX);
	CHECK((uint32_t)train->nb * train->size <= ONVM_TRAIN_BYTES || train->nb == 1);
	for (uint16_t k = 0; k < train->nb; k++, i = table.next[i]) {
		CHECK(!is_seen[i]);
		is_seen[i] = true;
		order[i] = (uint16_t)(number * ONVM_TRAIN_MAX + k);
		CHECK_EQUAL(departures[i].peer, train->peer);
		CHECK_EQUAL(departures[i].socket, train->socket);
		CHECK_EQUAL(departures[i].tos, train->tos);
		CHECK_EQUAL(departures[i].size, train->size);
		if (k + 1 == train->nb)
			CHECK_EQUAL(i, train->last);
	}
}

static void
test_each_packet_is_in_one_train_and_flows_keep_their_order(void)
{
	uint64_t state = test_seed(0x5eed);

	for (int round = 0; round < ROUNDS; round++) {
		const uint16_t nb = (uint16_t)(1 + test_random(&state) % ONVM_PENDING_MAX);
		const uint16_t sizes = (uint16_t)(1 + test_random(&state) % 5);
		bool is_seen[ONVM_PENDING_MAX] = {false};
		uint16_t order[ONVM_PENDING_MAX];

		for (uint16_t i = 0; i < nb; i++) {
			const uint16_t flow = (uint16_t)(test_random(&state) % 64);

			departures[i] = (struct onvm_departure){
				.peer = (uint16_t)(1 + flow % 3),
				.socket = (uint8_t)(flow % ONVM_ENTROPY_SOCKETS),
				.tos = (uint8_t)(test_random(&state) % 16 == 0),
				.size = (uint16_t)(100 + test_random(&state) % sizes * 700),
				.flow = flow};
		}
		onvm_trains_plan(&table, departures, nb);
		for (uint32_t t = 0; t < table.nb_trains; t++)
			check_train(&table.trains[t], is_seen, order, (uint16_t)t);
		for (uint16_t i = 0; i < nb; i++) {
			CHECK(is_seen[i]);
			for (uint16_t k = 0; k < i; k++)
				CHECK(departures[k].flow != departures[i].flow ||
				      order[k] < order[i]);
		}
	}
}

static void
test_packets_alike_make_full_trains(void)
{
	for (uint16_t i = 0; i < 256; i++)
		departures[i] = (struct onvm_departure){.peer = 5,
							.size = i % 2 == 0 ? 96 : 600,
							.flow = (uint16_t)(i % 2)};
	onvm_trains_plan(&table, departures, 256);
	CHECK_EQUAL(table.nb_trains, 4);
	for (uint32_t t = 0; t < table.nb_trains; t++)
		CHECK_EQUAL(table.trains[t].nb, ONVM_TRAIN_MAX);
}

/** Receive until @p bytes have come; what is merged is split at the size that the kernel names. */
static void
receive(int fd, const uint8_t *wanted, uint32_t bytes, uint16_t size)
{
	static uint8_t data[65536];

	for (uint32_t got = 0; got < bytes;) {
		_Alignas(struct cmsghdr) uint8_t control[64];
		struct iovec part = {data, sizeof(data)};
		struct msghdr header = {.msg_iov = &part,
					.msg_iovlen = 1,
					.msg_control = control,
					.msg_controllen = sizeof(control)};
		struct pollfd polled = {.fd = fd, .events = POLLIN};
		ssize_t nb;

		CHECK_EQUAL(poll(&polled, 1, 10000), 1);
		nb = recvmsg(fd, &header, 0);
		CHECK(nb > 0 && nb % size == 0 && got + (uint32_t)nb <= bytes);
		for (struct cmsghdr *entry = CMSG_FIRSTHDR(&header); entry != NULL;
		     entry = CMSG_NXTHDR(&header, entry)) {
			int merged;

			memcpy(&merged, CMSG_DATA(entry), sizeof(merged));
			if (entry->cmsg_level == SOL_UDP && entry->cmsg_type == UDP_GRO)
				CHECK_EQUAL(merged, size);
		}
		CHECK(memcmp(data, wanted + got, (size_t)nb) == 0);
		got += (uint32_t)nb;
	}
}

static void
send_and_receive(const struct onvm_socket_options *options)
{
	static uint8_t data[65536];
	const int in = onvm_socket_receive(options, PORT), out = onvm_socket_send(options);
	struct onvm_peer peer = {.is_used = true};
	/* Alone; a train; one of the largest that fit; one whose datagrams no device cuts. */
	const uint16_t shapes[][2] = {{1, 96}, {64, 96}, {45, 1432}, {3, 21000}};
	uint16_t port;
	socklen_t length = sizeof(peer.address);

	CHECK(in >= 0 && out >= 0);
	CHECK_EQUAL(getsockname(out, &peer.address.any, &length), 0);
	port = ntohs(peer.address.v4.sin_port);
	CHECK(port >= ONVM_ENTROPY_FIRST);
	peer.address_length =
		onvm_sockaddr_set(&peer.address, options->ip_version, options->address, PORT);
	for (uint32_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 96);
	for (uint32_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct onvm_train train = {.peer = 1,
						 .tos = 0x28,
						 .nb = shapes[i][0],
						 .size = shapes[i][1]};

		CHECK_EQUAL(onvm_train_send(out, &train, &peer, data, &limits), train.nb);
		receive(in, data, (uint32_t)train.nb * train.size, train.size);
	}
	CHECK_EQUAL(onvm_socket_overflows(in), 0);
	close(in);
	close(out);
}

static void
test_what_is_sent_comes_in(void)
{
	const struct onvm_socket_options v4 = {.ip_version = 4, .address = {127, 0, 0, 1}};
	const struct onvm_socket_options v6 = {.ip_version = 6, .address = {[15] = 1}};
	const int probe = onvm_socket_receive(&v6, PORT);

	send_and_receive(&v4);
	if (probe < 0)
		return; /* a host without IPv6 */
	close(probe);
	send_and_receive(&v6);
}

static void
test_what_does_not_fit_is_counted(void)
{
	static uint8_t data[65536];
	const struct onvm_socket_options options = {.ip_version = 4, .address = {127, 0, 0, 1}};
	const int in = onvm_socket_receive(&options, PORT), out = onvm_socket_send(&options);
	struct onvm_peer peer = {.is_used = true};
	const struct onvm_train train = {.peer = 1, .nb = 40, .size = 1400};
	const int small = 4096;

	CHECK_EQUAL(setsockopt(in, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	peer.address_length = onvm_sockaddr_set(&peer.address, 4, options.address, PORT);
	for (int i = 0; i < 8; i++)
		CHECK_EQUAL(onvm_train_send(out, &train, &peer, data, &limits), train.nb);
	CHECK(onvm_socket_overflows(in) > 0);
	close(in);
	close(out);
}

int
main(void)
{
	RUN(test_each_packet_is_in_one_train_and_flows_keep_their_order);
	RUN(test_packets_alike_make_full_trains);
	RUN(test_what_is_sent_comes_in);
	RUN(test_what_does_not_fit_is_counted);
	return 0;
}
