/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/tunnel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "peers/ecn.h"
#include "steering/spanning.h"

/** Room in the kernel for bursts, in bytes. */
#define SOCKET_BYTES (8 << 20)
/** Turns of a busy worker after which an empty socket is read again, at most. */
#define SKIPS_MAX 32
#define CONTROL_BYTES 64

struct message {
	uint8_t header[ONVM_TUNNEL_BYTES];
	struct iovec parts[2];
	union onvm_sockaddr address;
	_Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES];
};

struct tunnel_queue {
	int fd;
	uint32_t nb_skips, skips;
	uint64_t rx[ONVM_PEERS_MAX], tx[ONVM_PEERS_MAX];
	struct onvm_tunnel_packet received[ONVM_BURST_SIZE];
	struct mmsghdr in_headers[ONVM_BURST_SIZE];
	struct message in[ONVM_BURST_SIZE];
	struct mmsghdr out_headers[ONVM_PENDING_MAX];
	struct message out[ONVM_PENDING_MAX];
};

struct tunnel_port {
	uint32_t vni;
	uint32_t nb_queues;
	int family;
	const struct onvm_peers *peers;
	const struct onvm_steering *steering;
	struct tunnel_queue *queues;
};

/* ---- receiving ---- */

/** Type of service of a datagram, from its control message. */
static uint8_t
tos_of(struct msghdr *header)
{
	for (struct cmsghdr *entry = CMSG_FIRSTHDR(header); entry != NULL;
	     entry = CMSG_NXTHDR(header, entry)) {
		int value;

		if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_TOS)
			return *CMSG_DATA(entry);
		if (entry->cmsg_level != IPPROTO_IPV6 || entry->cmsg_type != IPV6_TCLASS)
			continue;
		memcpy(&value, CMSG_DATA(entry), sizeof(value));
		return (uint8_t)value;
	}
	return 0;
}

/**
 * Let @p mbuf be the inner frame of a datagram: the first ONVM_TUNNEL_BYTES are in the message, the
 * rest is behind the headroom.
 */
static bool
decapsulate(const struct message *message, uint32_t length, uint32_t vni, struct rte_mbuf *mbuf,
	    struct onvm_nsh *nsh)
{
	uint32_t offset = RTE_PKTMBUF_HEADROOM;

	if (!onvm_nsh_read(message->header, length, vni, nsh)) /* looks at no more than it has */
		return false;
	if (nsh->length < ONVM_TUNNEL_BYTES) { /* the frame begins in the message */
		const uint32_t nb = ONVM_TUNNEL_BYTES - nsh->length;

		offset -= nb;
		memcpy((uint8_t *)mbuf->buf_addr + offset, message->header + nsh->length, nb);
	} else {
		offset += nsh->length - ONVM_TUNNEL_BYTES;
	}
	mbuf->data_off = (uint16_t)offset;
	mbuf->data_len = (uint16_t)(length - nsh->length);
	mbuf->pkt_len = mbuf->data_len;
	mbuf->ol_flags = 0;
	return mbuf->data_len >= 14;
}

static void
prepare_receive(struct tunnel_queue *queue, uint32_t i, struct rte_mbuf *mbuf, uint32_t room)
{
	struct message *message = &queue->in[i];

	message->parts[0] = (struct iovec){message->header, ONVM_TUNNEL_BYTES};
	message->parts[1] = (struct iovec){(uint8_t *)mbuf->buf_addr + RTE_PKTMBUF_HEADROOM, room};
	queue->in_headers[i].msg_hdr = (struct msghdr){
		.msg_name = &message->address,
		.msg_namelen = sizeof(message->address),
		.msg_iov = message->parts,
		.msg_iovlen = 2,
		.msg_control = message->control,
		.msg_controllen = sizeof(message->control),
	};
}

static uint16_t
tunnel_rx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb,
	  struct onvm_rx_result *result)
{
	const struct tunnel_port *tunnel = port->priv;
	struct tunnel_queue *queue = &tunnel->queues[index];
	/* P2: pairs with the release store P1 in publish_peers(). */
	const struct onvm_peer_index *peers =
		__atomic_load_n(&tunnel->peers->index, __ATOMIC_ACQUIRE);
	const uint32_t room = port->memory->stride - RTE_PKTMBUF_HEADROOM;
	struct rte_mbuf *fresh[ONVM_BURST_SIZE];
	uint16_t nb_kept = 0;
	int nb_rx;

	if (queue->nb_skips != 0) {
		queue->nb_skips--;
		return 0;
	}
	if (rte_mempool_get_bulk(port->pools[index], (void **)fresh, nb) != 0)
		return 0;
	for (uint16_t i = 0; i < nb; i++)
		prepare_receive(queue, i, fresh[i], room);
	nb_rx = recvmmsg(queue->fd, queue->in_headers, nb, MSG_DONTWAIT, NULL);
	if (nb_rx <= 0) {
		nb_rx = 0;
		queue->skips = RTE_MIN(queue->skips * 2 + 1, (uint32_t)SKIPS_MAX);
		queue->nb_skips = queue->skips;
	} else {
		queue->skips = 0;
	}
	for (int i = 0; i < nb_rx; i++) {
		struct msghdr *header = &queue->in_headers[i].msg_hdr;
		struct onvm_tunnel_packet *packet = &queue->received[nb_kept];
		struct rte_mbuf *mbuf = fresh[i];

		packet->peer = onvm_peers_find(peers, &queue->in[i].address);
		queue->rx[packet->peer]++;
		if (header->msg_flags & MSG_TRUNC)
			result->nb_oversize++;
		else if (packet->peer == 0 ||
			 !decapsulate(&queue->in[i], queue->in_headers[i].msg_len, tunnel->vni,
				      mbuf, &packet->nsh))
			result->nb_foreign++;
		else if (!onvm_ecn_decapsulate(rte_pktmbuf_mtod(mbuf, uint8_t *), mbuf->data_len,
					       tos_of(header)))
			result->nb_congested++;
		else {
			fresh[i] = fresh[nb_kept]; /* goes back to the pool with the others */
			fresh[nb_kept] = mbuf;
			mbufs[nb_kept++] = mbuf;
		}
	}
	onvm_packets_free(port->memory, &fresh[nb_kept], nb - nb_kept);
	return nb_kept;
}

/* ---- sending ---- */

static void
prepare_send(const struct tunnel_port *tunnel, struct tunnel_queue *queue, uint32_t i,
	     struct rte_mbuf *mbuf)
{
	struct message *message = &queue->out[i];
	const uint32_t where = mbuf->hash.fdir.lo;
	const struct onvm_peer *peer = &tunnel->peers->peers[mbuf->hash.fdir.hi];
	const struct onvm_path *path = &tunnel->steering->paths[(uint16_t)where];
	const uint32_t hop = where >> 16 & 255;
	struct onvm_nsh nsh = {.chain = path->spi >> 1,
			       .is_reverse = path->is_reverse,
			       .si = (uint8_t)(path->nb_services + 1),
			       .ttl = (uint8_t)(where >> 24)};
	int tos;
	struct cmsghdr *entry = (struct cmsghdr *)message->control;

	for (uint32_t k = 0; k < hop; k++)
		nsh.si = (uint8_t)(nsh.si - path->hops[k].nb_services);
	onvm_span_numbers(tunnel->steering, path, nsh.numbers);
	onvm_nsh_write(message->header, tunnel->vni, &nsh);
	tos = onvm_ecn_tos(rte_pktmbuf_mtod(mbuf, const uint8_t *), mbuf->data_len);
	entry->cmsg_level = tunnel->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	entry->cmsg_type = tunnel->family == AF_INET ? IP_TOS : IPV6_TCLASS;
	entry->cmsg_len = CMSG_LEN(sizeof(tos));
	memcpy(CMSG_DATA(entry), &tos, sizeof(tos));
	message->parts[0] = (struct iovec){message->header, ONVM_TUNNEL_BYTES};
	message->parts[1] = (struct iovec){rte_pktmbuf_mtod(mbuf, void *), mbuf->data_len};
	message->address = peer->address;
	queue->out_headers[i].msg_hdr = (struct msghdr){
		.msg_name = &message->address,
		.msg_namelen = peer->address_length,
		.msg_iov = message->parts,
		.msg_iovlen = 2,
		.msg_control = message->control,
		.msg_controllen = CMSG_SPACE(sizeof(tos)),
	};
}

static uint16_t
tunnel_tx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct tunnel_port *tunnel = port->priv;
	struct tunnel_queue *queue = &tunnel->queues[index];
	uint32_t nb_sent = 0, nb_left = nb;

	for (uint32_t i = 0; i < nb; i++)
		prepare_send(tunnel, queue, i, mbufs[i]);
	while (nb_sent < nb_left) {
		const int rc = sendmmsg(queue->fd, queue->out_headers + nb_sent, nb_left - nb_sent,
					MSG_DONTWAIT);
		struct rte_mbuf *stuck = mbufs[nb_sent];

		if (rc > 0) {
			nb_sent += (uint32_t)rc;
			continue;
		}
		if (errno == EAGAIN || errno == ENOBUFS)
			break;
		if (errno == EINTR)
			continue;
		/* This one cannot be sent: no route, say. It goes behind those that can. */
		nb_left--;
		for (uint32_t i = nb_sent; i < nb_left; i++) {
			mbufs[i] = mbufs[i + 1];
			queue->out_headers[i] = queue->out_headers[i + 1];
		}
		mbufs[nb_left] = stuck;
	}
	for (uint32_t i = 0; i < nb_sent; i++)
		queue->tx[mbufs[i]->hash.fdir.hi]++;
	onvm_packets_free(port->memory, mbufs, nb_sent);
	return (uint16_t)nb_sent;
}

/* ---- life ---- */

const struct onvm_tunnel_packet *
onvm_tunnel_received(const struct onvm_port *port, uint16_t queue)
{
	return ((const struct tunnel_port *)port->priv)->queues[queue].received;
}

void
onvm_tunnel_read_peer(const struct onvm_port *port, uint16_t peer, uint64_t *rx, uint64_t *tx)
{
	const struct tunnel_port *tunnel = port->priv;

	*rx = *tx = 0;
	for (uint32_t i = 0; i < tunnel->nb_queues; i++) {
		*rx += tunnel->queues[i].rx[peer];
		*tx += tunnel->queues[i].tx[peer];
	}
}

static void
tunnel_close(struct onvm_port *port)
{
	struct tunnel_port *tunnel = port->priv;

	for (uint32_t i = 0; i < tunnel->nb_queues; i++)
		if (tunnel->queues[i].fd >= 0)
			close(tunnel->queues[i].fd);
	free(tunnel->queues);
	free(tunnel);
	port->priv = NULL;
}

static void
set_option(int fd, int level, int option, int value)
{
	/* An option that a kernel lacks or refuses costs speed, never packets that it has taken. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static int
open_socket(const struct onvm_tunnel_options *options, uint32_t nb_workers)
{
	const int family = options->ip_version == 4 ? AF_INET : AF_INET6;
	const int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	union onvm_sockaddr address;
	const socklen_t length = onvm_sockaddr_set(&address, options->ip_version, options->address,
						   ONVM_VXLAN_GPE_PORT);

	if (fd < 0)
		return -errno;
	if (nb_workers > 1)
		set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	set_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BYTES);
	set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BYTES);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BYTES);
	set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES);
	if (family == AF_INET) {
		set_option(fd, IPPROTO_IP, IP_RECVTOS, 1);
		set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
	} else {
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
		set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
		set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
	}
	if (bind(fd, &address.any, length) != 0) {
		const int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

static const struct onvm_port_ops tunnel_ops = {
	.rx_burst = tunnel_rx,
	.tx_burst = tunnel_tx,
	.close = tunnel_close,
};

int
onvm_port_tunnel_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		      char *error, size_t error_size)
{
	const struct onvm_tunnel_options *options = kind_options;
	struct tunnel_port *tunnel = calloc(1, sizeof(*tunnel));
	int rc = 0;

	if (tunnel == NULL)
		return -ENOMEM;
	tunnel->vni = options->vni;
	tunnel->family = options->ip_version == 4 ? AF_INET : AF_INET6;
	tunnel->peers = options->peers;
	tunnel->steering = options->steering;
	tunnel->queues = calloc(nb_workers, sizeof(*tunnel->queues));
	port->priv = tunnel;
	if (tunnel->queues == NULL)
		rc = -ENOMEM;
	for (uint32_t i = 0; i < nb_workers && rc == 0; i++) {
		tunnel->queues[i].fd = open_socket(options, nb_workers);
		rc = RTE_MIN(tunnel->queues[i].fd, 0);
		tunnel->nb_queues = i + 1;
		port->wake_fds[i] = tunnel->queues[i].fd;
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
