/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/trains.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/uio.h>

#include <rte_common.h>

/** After so many trains that were taken apart one is tried again: routes change. */
#define ALONE_MAX 4096
#define CONTROL_BYTES 64

/* ---- planning ---- */

/** Whether the train takes one more datagram. */
static bool
has_room(const struct onvm_train *train, const struct onvm_departure *departure)
{
	return train->peer == departure->peer && train->socket == departure->socket &&
	       train->tos == departure->tos && train->size == departure->size &&
	       train->nb < ONVM_TRAIN_MAX &&
	       (train->nb + 1u) * (uint32_t)train->size <= ONVM_TRAIN_BYTES;
}

/** Where the number of the train for a departure is. */
static uint16_t *
open_slot(struct onvm_timetable *table, const struct onvm_departure *departure)
{
	const uint32_t key = ((uint32_t)departure->peer << 16 ^ (uint32_t)departure->socket << 8 ^
			      (uint32_t)departure->tos << 20 ^ departure->size) *
			     0x9e3779b1u;

	return &table->open[(key >> 16) % RTE_DIM(table->open)];
}

void
onvm_trains_plan(struct onvm_timetable *table, const struct onvm_departure *departures, uint16_t nb)
{
	table->nb_trains = 0;
	memset(table->open, 0, sizeof(table->open));
	memset(table->flows, 0, sizeof(table->flows));
	for (uint16_t i = 0; i < nb; i++) {
		const struct onvm_departure *departure = &departures[i];
		uint16_t *open = open_slot(table, departure);
		uint16_t *last = &table->flows[departure->flow % RTE_DIM(table->flows)];
		struct onvm_train *train = *open == 0 ? NULL : &table->trains[*open - 1];

		if (train != NULL && *open >= *last && has_room(train, departure)) {
			table->next[train->last] = i;
			train->last = i;
			train->nb++;
		} else {
			table->trains[table->nb_trains++] =
				(struct onvm_train){.peer = departure->peer,
						    .socket = departure->socket,
						    .tos = departure->tos,
						    .size = departure->size,
						    .nb = 1,
						    .first = i,
						    .last = i};
			*open = (uint16_t)table->nb_trains;
		}
		*last = *open;
	}
}

/* ---- sending ---- */

static struct cmsghdr *
add_control(struct msghdr *header, struct cmsghdr *entry, int level, int type, const void *value,
	    size_t size)
{
	entry = entry == NULL ? CMSG_FIRSTHDR(header) : CMSG_NXTHDR(header, entry);
	entry->cmsg_level = level;
	entry->cmsg_type = type;
	entry->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(entry), value, size);
	return entry;
}

/** Send @p bytes as datagrams of @p size; @return 0 or an errno. */
static int
send_one(int fd, const struct onvm_peer *peer, uint8_t tos, const uint8_t *data, uint32_t bytes,
	 uint16_t size)
{
	const bool is_v4 = peer->address.any.sa_family == AF_INET;
	const int value = tos;
	struct iovec part = {(void *)(uintptr_t)data, bytes};
	_Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES] = {0};
	struct msghdr header = {
		.msg_name = (void *)(uintptr_t)&peer->address,
		.msg_namelen = peer->address_length,
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(sizeof(value)) +
				  (size < bytes ? CMSG_SPACE(sizeof(size)) : 0),
	};
	struct cmsghdr *entry = add_control(&header, NULL, is_v4 ? IPPROTO_IP : IPPROTO_IPV6,
					    is_v4 ? IP_TOS : IPV6_TCLASS, &value, sizeof(value));

	if (size < bytes)
		(void)add_control(&header, entry, SOL_UDP, UDP_SEGMENT, &size, sizeof(size));
	while (sendmsg(fd, &header, MSG_DONTWAIT) < 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

/** Whether a train was refused for what it is, not for where it goes. */
static bool
is_about_trains(int error)
{
	/* No checksum offload; a datagram that needs fragments; longer than the device's limit. */
	return error == EIO || error == EINVAL || error == EMSGSIZE;
}

/** Whether the datagrams of @p train must go one by one. */
static bool
must_go_alone(struct onvm_train_limits *limits, const struct onvm_train *train)
{
	const uint16_t from = limits->alone_from[train->peer];

	if (from == 0 || train->size < from)
		return false;
	if (++limits->nb_alone[train->peer] < ALONE_MAX)
		return true;
	limits->alone_from[train->peer] = 0;
	return false;
}

uint16_t
onvm_train_send(int fd, const struct onvm_train *train, const struct onvm_peer *peer,
		const uint8_t *data, struct onvm_train_limits *limits)
{
	uint16_t nb_sent = 0;

	if (train->nb == 1 || !must_go_alone(limits, train)) {
		const int error = send_one(fd, peer, train->tos, data,
					   (uint32_t)train->nb * train->size, train->size);

		if (error == 0 || train->nb == 1 || !is_about_trains(error)) {
			errno = error;
			return error == 0 ? train->nb : 0;
		}
		limits->alone_from[train->peer] = error == EIO ? 1 : train->size;
		limits->nb_alone[train->peer] = 0;
	}
	for (; nb_sent < train->nb; nb_sent++, data += train->size) {
		const int error = send_one(fd, peer, train->tos, data, train->size, train->size);

		if (error != 0) {
			errno = error;
			break;
		}
	}
	return nb_sent;
}
