/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TRAINS_H_
#define _ONVM_TRAINS_H_

/**
 * @file
 * Trains: datagrams that the kernel takes, or gives, in one piece.
 *
 * What the kernel's UDP costs, it costs for each call and each buffer, not for each byte. Datagrams
 * of one size to one peer go out as one buffer that is cut late or never (UDP_SEGMENT), and come in
 * as the kernel has merged them (UDP_GRO). Measured on loopback, bursts of 64 packets of 64 bytes:
 * 73 ns a packet in trains of 64, 123 in trains of 32, 227 in trains of 16, 3,300 alone. So a
 * worker has no more than two sending sockets, which divide each burst.
 *
 * Packets of a flow stay in order: trains are sent in the order in which they were begun, and no
 * packet gets into an earlier train than the packet before it of its flow.
 *
 * Threads: each structure belongs to one worker.
 */

#include <stdbool.h>
#include <stdint.h>

#include "peers/peers.h"
#include "table_sizes.h"

/** Datagrams of a train: the kernel's limit before Linux 6.2. */
#define ONVM_TRAIN_MAX 64
/** Bytes of a train: an IP packet, less its headers. */
#define ONVM_TRAIN_BYTES 65000
/** Sending sockets of a worker; a power of two. */
#define ONVM_ENTROPY_SOCKETS 2

/** One packet to be sent. */
struct onvm_departure {
	uint16_t peer;
	uint8_t socket; /**< below ONVM_ENTROPY_SOCKETS */
	uint8_t tos;
	uint16_t size; /**< bytes of the datagram */
	uint16_t flow; /**< bits of its flow's hash */
};

struct onvm_train {
	uint16_t peer;
	uint8_t socket, tos;
	uint16_t size; /**< bytes of each of its datagrams */
	uint16_t nb;
	uint16_t first, last; /**< departures; `next` leads from one to the next */
};

/** Departures put together into trains. */
struct onvm_timetable {
	uint32_t nb_trains;
	struct onvm_train trains[ONVM_PENDING_MAX];
	uint16_t next[ONVM_PENDING_MAX];
	uint16_t open[128];  /**< number of a train, from 1, by what its datagrams share; 0: none */
	uint16_t flows[256]; /**< number of the train that a flow was in last; 0: none */
};

/** Put together @p nb departures. */
void onvm_trains_plan(struct onvm_timetable *table, const struct onvm_departure *departures,
		      uint16_t nb);

/** What a worker has learned of the trains that its interfaces take. */
struct onvm_train_limits {
	/** Datagrams of this size and above go alone, by peer; 0: nothing learned. */
	uint16_t alone_from[ONVM_PEERS_MAX];
	uint16_t nb_alone[ONVM_PEERS_MAX]; /**< trains taken apart since */
};

/**
 * Send one train.
 *
 * @param data  its datagrams, one behind the other
 * @return datagrams that were sent, from the front; fewer than train->nb: errno has the reason
 */
uint16_t onvm_train_send(int fd, const struct onvm_train *train, const struct onvm_peer *peer,
			 const uint8_t *data, struct onvm_train_limits *limits);

#endif /* _ONVM_TRAINS_H_ */
