/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/tunnel.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "peers/ecn.h"
#include "peers/probe_packet.h"
#include "peers/security/replay.h"
#include "peers/sockets.h"
#include "peers/strangers.h"
#include "peers/trains.h"
#include "steering/spanning.h"

/**
 * Turns of a busy worker after which an empty socket is read again, at most. A worker that was
 * woken takes no more turns before it sleeps again.
 */
#define SKIPS_MAX 7
/** Trains that are received at once. */
#define TRAINS_MAX 8
#define DATAGRAM_MAX 65536
#define CONTROL_BYTES 128

/** A received train, or a datagram alone. */
struct arrival {
	uint32_t length, offset; /**< bytes; those from `offset` on are not taken yet */
	uint32_t size;		 /**< of its datagrams but the last */
	uint16_t peer, port;	 /**< of the sender; the port is in host order */
	uint8_t tos;
	bool is_cut; /**< larger than any datagram */
};

/** What one sender's sockets have sent to us, by stream. */
#define STREAMS_MAX (ONVM_WORKERS_MAX * ONVM_ENTROPY_SOCKETS)
struct windows {
	struct onvm_replay streams[STREAMS_MAX];
};

struct tunnel_queue {
	/* receiving */
	int fd;
	uint32_t nb_skips, skips;
	uint32_t nb_arrivals, next_arrival;
	struct arrival arrivals[TRAINS_MAX];
	struct mmsghdr headers[TRAINS_MAX];
	struct iovec parts[TRAINS_MAX];
	union onvm_sockaddr senders[TRAINS_MAX];
	_Alignas(struct cmsghdr) uint8_t controls[TRAINS_MAX][CONTROL_BYTES];
	uint8_t *data; /**< TRAINS_MAX times DATAGRAM_MAX */
	struct onvm_tunnel_packet received[ONVM_BURST_SIZE];
	struct windows *windows[ONVM_PEERS_MAX]; /**< made with the first genuine datagram */
	/* sending */
	uint32_t index; /**< of the worker */
	int out_fds[ONVM_ENTROPY_SOCKETS];
	uint16_t out_ports[ONVM_ENTROPY_SOCKETS];
	uint64_t numbers[ONVM_ENTROPY_SOCKETS]; /**< of the last datagram sealed */
	struct onvm_departure departures[ONVM_PENDING_MAX];
	struct onvm_timetable table;
	struct onvm_train_limits limits;
	uint8_t train[DATAGRAM_MAX];
	struct onvm_strangers strangers;
	/* both */
	struct onvm_tunnel_counters counters[ONVM_PEERS_MAX]; /**< 0: strangers */
};

struct tunnel_port {
	uint32_t vni;
	uint32_t nb_queues;
	const struct onvm_peers *peers;
	const struct onvm_steering *steering;
	struct onvm_prober *prober;
	enum onvm_security security;
	uint32_t overhead; /**< bytes that a frame grows by */
	struct tunnel_queue *queues;
};

/* ---- receiving ---- */

/** Read type of service and size of the datagrams from control messages. */
static void
read_control(struct msghdr *header, struct arrival *arrival)
{
	for (struct cmsghdr *entry = CMSG_FIRSTHDR(header); entry != NULL;
	     entry = CMSG_NXTHDR(header, entry)) {
		int value = 0;

		if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_TOS) {
			arrival->tos = *CMSG_DATA(entry);
			continue;
		}
		memcpy(&value, CMSG_DATA(entry), sizeof(value));
		if (entry->cmsg_level == IPPROTO_IPV6 && entry->cmsg_type == IPV6_TCLASS)
			arrival->tos = (uint8_t)value;
		else if (entry->cmsg_level == SOL_UDP && entry->cmsg_type == UDP_GRO && value > 0)
			arrival->size = (uint32_t)value;
	}
}

/** Ask the kernel for trains; all those before have been taken. */
static void
receive_trains(const struct tunnel_port *tunnel, struct tunnel_queue *queue)
{
	/* P2: pairs with the release store P1 in publish_peers(). */
	const struct onvm_peer_index *peers =
		__atomic_load_n(&tunnel->peers->index, __ATOMIC_ACQUIRE);
	int nb;

	for (uint32_t i = 0; i < TRAINS_MAX; i++) {
		struct msghdr *header = &queue->headers[i].msg_hdr;

		header->msg_namelen = sizeof(queue->senders[i]);
		header->msg_controllen = CONTROL_BYTES;
	}
	nb = recvmmsg(queue->fd, queue->headers, TRAINS_MAX, MSG_DONTWAIT, NULL);
	queue->next_arrival = 0;
	queue->nb_arrivals = nb < 0 ? 0 : (uint32_t)nb;
	if (nb <= 0) {
		queue->skips = RTE_MIN(queue->skips * 2 + 1, (uint32_t)SKIPS_MAX);
		queue->nb_skips = queue->skips;
		return;
	}
	queue->skips = 0;
	for (int i = 0; i < nb; i++) {
		struct msghdr *header = &queue->headers[i].msg_hdr;
		struct arrival *arrival = &queue->arrivals[i];

		*arrival = (struct arrival){
			.length = queue->headers[i].msg_len,
			.size = queue->headers[i].msg_len,
			.peer = onvm_peers_find(peers, &queue->senders[i]),
			.port = ntohs(queue->senders[i].v4.sin_port), /* where IPv6 has it, too */
			.is_cut = (header->msg_flags & MSG_TRUNC) != 0,
		};
		read_control(header, arrival);
	}
}

/** Datagrams of the trains that have arrived, at most @p max. */
static uint16_t
count_arrived(const struct tunnel_queue *queue, uint16_t max)
{
	uint32_t nb = 0;

	for (uint32_t i = queue->next_arrival; i < queue->nb_arrivals && nb < max; i++) {
		const struct arrival *arrival = &queue->arrivals[i];
		const uint32_t left = arrival->length - arrival->offset;

		nb += left == 0 ? 1 : (left + arrival->size - 1) / arrival->size;
	}
	return (uint16_t)RTE_MIN(nb, (uint32_t)max);
}

/** Windows of a peer; NULL: out of memory. */
static struct windows *
windows_of(struct tunnel_queue *queue, uint16_t peer)
{
	if (queue->windows[peer] == NULL)
		queue->windows[peer] = calloc(1, sizeof(*queue->windows[peer]));
	return queue->windows[peer];
}

/**
 * The window for a stream under the key of @p generation; NULL: datagrams under an older key.
 *
 * A new key begins with an empty window: no datagram under it was seen.
 */
static struct onvm_replay *
window_of(struct windows *windows, uint8_t stream, uint32_t generation)
{
	struct onvm_replay *window = &windows->streams[stream];

	if (window->generation == generation)
		return window;
	if ((int32_t)(generation - window->generation) < 0)
		return NULL;
	*window = (struct onvm_replay){.generation = generation};
	return window;
}

/** Whether a sealed datagram of @p arrival is genuine and new; else it is counted. */
static bool
open_sealed(const struct tunnel_port *tunnel, struct tunnel_queue *queue,
	    const struct arrival *arrival, uint8_t *data, uint32_t length,
	    struct onvm_rx_result *result)
{
	struct onvm_tunnel_counters *counters = &queue->counters[arrival->peer];
	const struct onvm_gcm_key *key = NULL;
	struct windows *windows;
	struct onvm_replay *window;
	struct onvm_seal seal;
	uint32_t generation;

	if (onvm_seal_read(data, length, &seal) && seal.stream < STREAMS_MAX)
		key = onvm_keys_in(tunnel->peers->peers[arrival->peer].keys, seal.key, &generation);
	if (key == NULL || !onvm_seal_open(key, tunnel->security, arrival->port, data, length)) {
		counters->forged++;
		result->nb_forged++;
		return false;
	}
	windows = windows_of(queue, arrival->peer);
	window = windows == NULL ? NULL : window_of(windows, seal.stream, generation);
	if (window == NULL || !onvm_replay_is_new(window, seal.number)) {
		counters->replayed++;
		result->nb_replayed++;
		return false;
	}
	onvm_replay_note(window, seal.number);
	return true;
}

static uint32_t
now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint32_t)now.tv_sec;
}

/**
 * Take a probe of a host that is no peer. One that has just left need not know it yet, and one that
 * has just joined is known here a moment later.
 */
static void
take_strange_probe(const struct tunnel_port *tunnel, struct tunnel_queue *queue,
		   const struct arrival *arrival, const uint8_t *data, uint32_t length,
		   struct onvm_rx_result *result)
{
	const union onvm_sockaddr *sender = &queue->senders[arrival - queue->arrivals];
	/* P2: pairs with the release store P1 in publish_peers(). */
	const struct onvm_left_peer *left =
		onvm_peers_find_left(__atomic_load_n(&tunnel->peers->index, __ATOMIC_ACQUIRE),
				     sender, now_s());
	struct onvm_probe_ends ends;
	struct onvm_probe probe;

	if (!onvm_probe_read(data, length, tunnel->vni, &probe)) {
		result->nb_foreign++;
		return;
	}
	if (left == NULL) {
		result->nb_foreign += onvm_strangers_note(&queue->strangers, sender, now_s());
		return;
	}
	memcpy(ends.from, left->address, sizeof(ends.from));
	memcpy(ends.to, tunnel->peers->own, sizeof(ends.to));
	if (tunnel->security != ONVM_SECURITY_NONE &&
	    !onvm_probe_is_genuine(left->secret, &ends, data))
		result->nb_foreign++;
}

/** Hand a probe on, if it is genuine; that it is fresh the prober finds out. */
static void
take_probe(const struct tunnel_port *tunnel, struct tunnel_queue *queue,
	   const struct arrival *arrival, const uint8_t *data, uint32_t length,
	   struct onvm_rx_result *result)
{
	const struct onvm_peer *peer = &tunnel->peers->peers[arrival->peer];
	struct onvm_probe_ends ends;
	struct onvm_probe probe;

	if (!onvm_probe_read(data, length, tunnel->vni, &probe)) {
		result->nb_foreign++;
		return;
	}
	if (tunnel->security != ONVM_SECURITY_NONE) {
		onvm_sockaddr_bytes(&peer->address, ends.from);
		memcpy(ends.to, tunnel->peers->own, sizeof(ends.to));
		if (!onvm_probe_is_genuine(peer->secret, &ends, data)) {
			queue->counters[arrival->peer].forged++;
			result->nb_forged++;
			return;
		}
	}
	onvm_prober_put(tunnel->prober, queue->index, arrival->peer, data, length);
}

/** Let @p mbuf be the inner frame of a datagram; false: it has none, or not for us. */
static bool
decapsulate(const uint8_t *data, uint32_t length, uint32_t vni, uint32_t room,
	    struct rte_mbuf *mbuf, struct onvm_nsh *nsh, struct onvm_rx_result *result)
{
	uint32_t nb;

	if (!onvm_nsh_read(data, length, vni, nsh) || length - nsh->length < 14) {
		result->nb_foreign++;
		return false;
	}
	nb = length - nsh->length;
	if (nb > room) {
		result->nb_oversize++;
		return false;
	}
	mbuf->data_off = RTE_PKTMBUF_HEADROOM;
	mbuf->data_len = (uint16_t)nb;
	mbuf->pkt_len = nb;
	mbuf->ol_flags = 0;
	memcpy(rte_pktmbuf_mtod(mbuf, uint8_t *), data + nsh->length, nb);
	return true;
}

/** Take the next datagram into @p mbuf; false: it was counted in @p result instead. */
static bool
take_datagram(const struct onvm_port *port, struct tunnel_queue *queue, struct rte_mbuf *mbuf,
	      struct onvm_tunnel_packet *packet, struct onvm_rx_result *result)
{
	const struct tunnel_port *tunnel = port->priv;
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	struct arrival *arrival = &queue->arrivals[queue->next_arrival];
	uint8_t *data = queue->data + (size_t)queue->next_arrival * DATAGRAM_MAX + arrival->offset;
	uint32_t length = RTE_MIN(arrival->size, arrival->length - arrival->offset);

	arrival->offset += length;
	if (arrival->offset == arrival->length)
		queue->next_arrival++;
	packet->peer = arrival->peer;
	if (arrival->is_cut) {
		result->nb_oversize++;
		return false;
	}
	if (packet->peer == 0) {
		if (onvm_probe_is_one(data, length))
			take_strange_probe(tunnel, queue, arrival, data, length, result);
		else
			result->nb_foreign++;
		return false;
	}
	if (unlikely(onvm_probe_is_one(data, length))) {
		take_probe(tunnel, queue, arrival, data, length, result);
		return false;
	}
	queue->counters[packet->peer].rx++;
	if (tunnel->security != ONVM_SECURITY_NONE) {
		if (!open_sealed(tunnel, queue, arrival, data, length, result))
			return false;
		length -= ONVM_SEAL_BYTES;
	}
	if (!decapsulate(data, length, tunnel->vni, room, mbuf, &packet->nsh, result))
		return false;
	if (onvm_ecn_decapsulate(rte_pktmbuf_mtod(mbuf, uint8_t *), mbuf->data_len, arrival->tos))
		return true;
	result->nb_congested++;
	return false;
}

static uint16_t
tunnel_rx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb,
	  struct onvm_rx_result *result)
{
	const struct tunnel_port *tunnel = port->priv;
	struct tunnel_queue *queue = &tunnel->queues[index];
	uint16_t nb_kept = 0, nb_arrived;

	if (queue->next_arrival == queue->nb_arrivals) {
		if (queue->nb_skips != 0) {
			queue->nb_skips--;
			return 0;
		}
		receive_trains(tunnel, queue);
		if (unlikely(queue->strangers.nb != 0))
			/* P2: pairs with the release store P1 in publish_peers(). */
			result->nb_foreign += onvm_strangers_settle(
				&queue->strangers,
				__atomic_load_n(&tunnel->peers->index, __ATOMIC_ACQUIRE), now_s());
	}
	nb_arrived = count_arrived(queue, nb);
	if (nb_arrived == 0 ||
	    rte_mempool_get_bulk(port->pools[index], (void **)mbufs, nb_arrived) != 0)
		return 0;
	for (uint16_t i = 0; i < nb_arrived; i++)
		nb_kept += take_datagram(port, queue, mbufs[nb_kept], &queue->received[nb_kept],
					 result);
	if (nb_kept < nb_arrived)
		onvm_packets_free(port->memory, &mbufs[nb_kept], nb_arrived - nb_kept);
	return nb_kept;
}

static uint64_t
tunnel_due(struct onvm_port *port, uint16_t index)
{
	const struct tunnel_port *tunnel = port->priv;
	const struct tunnel_queue *queue = &tunnel->queues[index];

	/* What has been received waits for buffers; the rest makes the socket readable. */
	return queue->next_arrival != queue->nb_arrivals ? 0 : UINT64_MAX;
}

/* ---- sending ---- */

/** Write the headers of a packet, ONVM_TUNNEL_BYTES. */
static void
encapsulate(const struct tunnel_port *tunnel, const struct rte_mbuf *mbuf, uint8_t *data)
{
	const uint32_t where = mbuf->hash.fdir.lo;
	const struct onvm_path *path = &tunnel->steering->paths[(uint16_t)where];
	const uint32_t hop = where >> 16 & 255;
	struct onvm_nsh nsh = {.chain = path->spi >> 1,
			       .is_reverse = path->is_reverse,
			       .si = (uint8_t)(path->nb_services + 1),
			       .ttl = (uint8_t)(where >> 24)};

	for (uint32_t k = 0; k < hop; k++)
		nsh.si = (uint8_t)(nsh.si - path->hops[k].nb_services);
	onvm_span_numbers(tunnel->steering, path, nsh.numbers);
	onvm_nsh_write(data, tunnel->vni, &nsh);
}

/** Put the datagrams of a train one behind the other. */
static void
load_train(const struct tunnel_port *tunnel, struct tunnel_queue *queue,
	   const struct onvm_train *train, struct rte_mbuf **mbufs)
{
	const uint8_t stream = (uint8_t)(queue->index * ONVM_ENTROPY_SOCKETS + train->socket);
	/* It was there when the packets were queued (onvm_peer_is_ready()), and only others follow. */
	const struct onvm_out_key *key =
		tunnel->security == ONVM_SECURITY_NONE ?
			NULL :
			onvm_keys_out(tunnel->peers->peers[train->peer].keys);
	uint8_t *data = queue->train;

	for (uint32_t i = train->first, nb = train->nb; nb > 0; nb--, i = queue->table.next[i]) {
		encapsulate(tunnel, mbufs[i], data);
		/* Once, into private memory: an NF may still write to what it has given away. */
		memcpy(data + ONVM_TUNNEL_BYTES, rte_pktmbuf_mtod(mbufs[i], const void *),
		       mbufs[i]->data_len);
		if (key != NULL)
			onvm_seal(key, tunnel->security, stream, ++queue->numbers[train->socket],
				  queue->out_ports[train->socket], data,
				  ONVM_TUNNEL_BYTES + mbufs[i]->data_len);
		data += queue->departures[i].size;
	}
}

/** Send a train, and put the mbufs of what was sent into @p sent; false: the socket is full. */
static bool
send_train(const struct tunnel_port *tunnel, struct tunnel_queue *queue,
	   const struct onvm_train *train, struct rte_mbuf **mbufs, struct rte_mbuf **sent,
	   uint16_t *nb_sent)
{
	uint16_t nb;

	load_train(tunnel, queue, train, mbufs);
	nb = onvm_train_send(queue->out_fds[train->socket], train,
			     &tunnel->peers->peers[train->peer], queue->train, &queue->limits);
	queue->counters[train->peer].tx += nb;
	for (uint32_t i = train->first, k = 0; k < nb; k++, i = queue->table.next[i]) {
		sent[(*nb_sent)++] = mbufs[i];
		mbufs[i] = NULL;
	}
	return nb == train->nb || (errno != EAGAIN && errno != ENOBUFS);
}

static uint16_t
tunnel_tx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct tunnel_port *tunnel = port->priv;
	struct tunnel_queue *queue = &tunnel->queues[index];
	struct rte_mbuf *sent[ONVM_PENDING_MAX];
	uint16_t nb_sent = 0, nb_left;

	for (uint16_t i = 0; i < nb; i++) {
		const uint32_t to = mbufs[i]->hash.fdir.hi;

		queue->departures[i] = (struct onvm_departure){
			.peer = (uint16_t)to,
			.socket = (uint8_t)((to >> 16) % ONVM_ENTROPY_SOCKETS),
			.tos = onvm_ecn_tos(rte_pktmbuf_mtod(mbufs[i], const uint8_t *),
					    mbufs[i]->data_len),
			.size = (uint16_t)(tunnel->overhead + mbufs[i]->data_len),
			.flow = (uint16_t)(to >> 16)};
	}
	onvm_trains_plan(&queue->table, queue->departures, nb);
	for (uint32_t i = 0; i < queue->table.nb_trains; i++)
		if (!send_train(tunnel, queue, &queue->table.trains[i], mbufs, sent, &nb_sent))
			break;
	/* Those that are left go behind those that were sent; the caller keeps them. */
	nb_left = nb;
	for (uint16_t i = nb; i-- > 0 && nb_sent < nb;)
		if (mbufs[i] != NULL)
			mbufs[--nb_left] = mbufs[i];
	onvm_packets_free(port->memory, sent, nb_sent);
	return nb_sent;
}

/* ---- life ---- */

const struct onvm_tunnel_packet *
onvm_tunnel_received(const struct onvm_port *port, uint16_t queue)
{
	return ((const struct tunnel_port *)port->priv)->queues[queue].received;
}

void
onvm_tunnel_read_peer(const struct onvm_port *port, uint16_t peer,
		      struct onvm_tunnel_counters *counters)
{
	const struct tunnel_port *tunnel = port->priv;

	*counters = (struct onvm_tunnel_counters){0};
	for (uint32_t i = 0; i < tunnel->nb_queues; i++) {
		const struct onvm_tunnel_counters *own = &tunnel->queues[i].counters[peer];

		counters->rx += own->rx;
		counters->tx += own->tx;
		counters->forged += own->forged;
		counters->replayed += own->replayed;
	}
}

static void
close_queue(struct tunnel_queue *queue)
{
	if (queue->fd >= 0)
		close(queue->fd);
	for (uint32_t i = 0; i < ONVM_ENTROPY_SOCKETS; i++)
		if (queue->out_fds[i] >= 0)
			close(queue->out_fds[i]);
	for (uint32_t peer = 0; peer < ONVM_PEERS_MAX; peer++)
		free(queue->windows[peer]);
	free(queue->data);
}

static void
tunnel_close(struct onvm_port *port)
{
	struct tunnel_port *tunnel = port->priv;

	for (uint32_t i = 0; i < tunnel->nb_queues; i++)
		close_queue(&tunnel->queues[i]);
	free(tunnel->queues);
	free(tunnel);
	port->priv = NULL;
}

/** Open the sockets of a queue; 0 or -errno. */
static int
open_queue(struct tunnel_queue *queue, const struct onvm_socket_options *options)
{
	int rc = 0;

	queue->fd = -1;
	for (uint32_t i = 0; i < ONVM_ENTROPY_SOCKETS; i++)
		queue->out_fds[i] = -1;
	queue->data = malloc((size_t)TRAINS_MAX * DATAGRAM_MAX);
	if (queue->data == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < TRAINS_MAX; i++) {
		queue->parts[i] =
			(struct iovec){queue->data + (size_t)i * DATAGRAM_MAX, DATAGRAM_MAX};
		queue->headers[i].msg_hdr = (struct msghdr){.msg_name = &queue->senders[i],
							    .msg_iov = &queue->parts[i],
							    .msg_iovlen = 1,
							    .msg_control = queue->controls[i]};
	}
	for (uint32_t i = 0; i < ONVM_ENTROPY_SOCKETS && rc == 0; i++) {
		queue->out_fds[i] = onvm_socket_send(options);
		rc = RTE_MIN(queue->out_fds[i], 0);
		queue->out_ports[i] = rc == 0 ? onvm_socket_port(queue->out_fds[i]) : 0;
	}
	if (rc == 0) {
		queue->fd = onvm_socket_receive(options, ONVM_VXLAN_GPE_PORT);
		rc = RTE_MIN(queue->fd, 0);
	}
	return rc;
}

static void
tunnel_read(struct onvm_port *port, struct onvm_port_losses *losses, bool *is_down)
{
	const struct tunnel_port *tunnel = port->priv;

	*is_down = false;
	for (uint32_t i = 0; i < tunnel->nb_queues; i++)
		losses->nb_missed += onvm_socket_overflows(tunnel->queues[i].fd);
}

static const struct onvm_port_ops tunnel_ops = {
	.rx_burst = tunnel_rx,
	.tx_burst = tunnel_tx,
	.next_due = tunnel_due,
	.read = tunnel_read,
	.close = tunnel_close,
};

int
onvm_port_tunnel_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		      char *error, size_t error_size)
{
	const struct onvm_tunnel_options *options = kind_options;
	struct tunnel_port *tunnel = calloc(1, sizeof(*tunnel));
	struct onvm_socket_options sockets = {.ip_version = options->ip_version,
					      .is_shared = nb_workers > 1,
					      .is_busy = options->is_busy};
	int rc = 0;

	if (tunnel == NULL)
		return -ENOMEM;
	tunnel->vni = options->vni;
	tunnel->peers = options->peers;
	tunnel->steering = options->steering;
	tunnel->prober = options->prober;
	tunnel->security = options->peers->security;
	tunnel->overhead = ONVM_TUNNEL_BYTES +
			   (tunnel->security == ONVM_SECURITY_NONE ? 0 : ONVM_SEAL_BYTES);
	memcpy(sockets.address, options->address, sizeof(sockets.address));
	tunnel->queues = calloc(nb_workers, sizeof(*tunnel->queues));
	port->priv = tunnel;
	if (tunnel->queues == NULL)
		rc = -ENOMEM;
	for (uint32_t i = 0; i < nb_workers && rc == 0; i++) {
		tunnel->queues[i].index = i;
		rc = open_queue(&tunnel->queues[i], &sockets);
		tunnel->nb_queues = i + 1;
		port->wake_fds[i] = tunnel->queues[i].fd;
		onvm_prober_listen(tunnel->prober, i, tunnel->queues[i].fd);
	}
	if (rc != 0) {
		snprintf(error, error_size, "UDP port %u of the data address: %s",
			 ONVM_VXLAN_GPE_PORT, strerror(-rc));
		tunnel_close(port);
		return rc;
	}
	port->ops = &tunnel_ops;
	port->nb_queues = (uint16_t)nb_workers;
	port->nb_wake_fds = (uint16_t)nb_workers;
	port->is_tunnel = true;
	return 0;
}
