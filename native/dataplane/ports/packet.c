/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port "packet": an existing network interface, through packet sockets (packet(7)).
 *
 * The kernel copies frames into packet memory, without a ring between, and with the virtio-net
 * header they come and go as the kernel has them: segments of TCP merged up to 64 KiB, checksums
 * not yet made, VLAN tags beside the frame. A queue has a socket; several share the interface's
 * flows by a hash that is the same both ways (PACKET_FANOUT). Workers send through sockets of their
 * own, which receive nothing.
 *
 * Threads: a receive queue belongs to one worker, a send queue too; the control thread reads the
 * counters.
 */

#include "ports/kinds.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ports/vnet.h"

#define SEND_BYTES (16 << 20)

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000 /* Linux 5.15 */
#endif

union control {
	struct cmsghdr header;
	uint8_t bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
};

struct rx_queue {
	int fd;
	struct mmsghdr messages[ONVM_VNET_BURST];
	union control controls[ONVM_VNET_BURST];
	struct onvm_vnet_queue received;
};

struct tx_queue {
	int fd;
	uint64_t nb_refused, nb_large, nb_down;
	struct mmsghdr messages[ONVM_PENDING_MAX];
	struct virtio_net_hdr headers[ONVM_PENDING_MAX];
	struct iovec parts[ONVM_PENDING_MAX][2];
};

struct packet_port {
	struct onvm_packet_options options; /**< `interface` is ours */
	char interface[IF_NAMESIZE];
	int index;
	uint32_t nb_rx, nb_tx;
	uint32_t mtu;	    /**< atomic: of the interface, as last read */
	uint64_t nb_missed; /**< by the sockets, so far */
	struct rx_queue *rx;
	struct tx_queue *tx;
};

/* ---- receiving ---- */

/** Put a tag back that the kernel holds beside the frame. */
static void
restore_vlan(struct msghdr *message, struct rte_mbuf *mbuf)
{
	const struct cmsghdr *part = CMSG_FIRSTHDR(message);
	struct tpacket_auxdata aux;

	if (part == NULL || part->cmsg_level != SOL_PACKET || part->cmsg_type != PACKET_AUXDATA)
		return;
	memcpy(&aux, CMSG_DATA(part), sizeof(aux));
	if (unlikely(aux.tp_status & TP_STATUS_VLAN_VALID))
		onvm_vnet_insert_vlan(mbuf,
				      aux.tp_status & TP_STATUS_VLAN_TPID_VALID ? aux.tp_vlan_tpid :
										  ETHERTYPE_VLAN,
				      aux.tp_vlan_tci);
}

/** Read frames from a socket; @return how many, in @p mbufs. */
static uint16_t
read_frames(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct packet_port *own = port->priv;
	struct rx_queue *queue = &own->rx[index];
	uint16_t nb_kept = 0;
	int nb_rx;

	nb = onvm_vnet_prepare(&queue->received, nb, port->memory, port->pools[index]);
	for (uint16_t i = 0; i < nb; i++)
		queue->messages[i].msg_hdr = (struct msghdr){
			.msg_iov = queue->received.slots[i].parts,
			.msg_iovlen = ONVM_VNET_PARTS,
			.msg_control = &queue->controls[i],
			.msg_controllen = sizeof(queue->controls[i]),
		};
	nb_rx = recvmmsg(queue->fd, queue->messages, nb, MSG_DONTWAIT, NULL);
	/* The kernel had a frame that this header cannot describe, and has dropped it. */
	if (unlikely(nb_rx < 0 && errno == EINVAL))
		onvm_vnet_count_bad(&queue->received);
	for (int i = 0; i < nb_rx; i++) {
		struct msghdr *message = &queue->messages[i].msg_hdr;
		const ssize_t length =
			message->msg_flags & MSG_TRUNC ? -1 : (ssize_t)queue->messages[i].msg_len;
		struct rte_mbuf *mbuf =
			onvm_vnet_take(&queue->received, (uint16_t)i, length, port->memory);

		if (unlikely(mbuf == NULL))
			continue;
		restore_vlan(message, mbuf);
		mbufs[nb_kept++] = mbuf;
	}
	return nb_kept;
}

static uint16_t
packet_rx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb,
	  struct onvm_rx_result *result)
{
	const struct packet_port *own = port->priv;

	return onvm_vnet_receive(&own->rx[index].received, read_frames, port, index, mbufs, nb,
				 result);
}

/* ---- sending ---- */

/** Count a frame that the kernel does not take. */
static void
count_refused(struct tx_queue *queue, int error)
{
	uint64_t *counter = &queue->nb_refused;

	if (error == EMSGSIZE)
		counter = &queue->nb_large;
	else if (error == ENETDOWN || error == ENXIO)
		counter = &queue->nb_down;
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

/** Fill in what is sent; frames above the MTU are left out. @return how many are to be sent. */
static uint32_t
fill_messages(struct packet_port *own, struct tx_queue *queue, struct rte_mbuf **mbufs, uint16_t nb)
{
	const uint32_t mtu = __atomic_load_n(&own->mtu, __ATOMIC_RELAXED);
	uint32_t nb_filled = 0;

	for (uint32_t i = 0; i < nb; i++) {
		struct iovec *parts = queue->parts[nb_filled];
		const uint32_t on_wire = onvm_vnet_write(mbufs[i], &queue->headers[nb_filled]);

		/* The kernel checks the others; merged ones it would cut into what no host takes. */
		if (unlikely(queue->headers[nb_filled].gso_type != VIRTIO_NET_HDR_GSO_NONE &&
			     on_wire > mtu + ETHER_HDR_LEN + 2 * 4)) {
			count_refused(queue, EMSGSIZE);
			continue;
		}
		parts[0] =
			(struct iovec){&queue->headers[nb_filled], sizeof(struct virtio_net_hdr)};
		parts[1] = (struct iovec){rte_pktmbuf_mtod(mbufs[i], void *), mbufs[i]->data_len};
		queue->messages[nb_filled++].msg_hdr =
			(struct msghdr){.msg_iov = parts, .msg_iovlen = 2};
	}
	return nb_filled;
}

static uint16_t
packet_tx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb)
{
	struct packet_port *own = port->priv;
	struct tx_queue *queue = &own->tx[index];
	const uint32_t nb_filled = fill_messages(own, queue, mbufs, nb);
	uint32_t nb_done = 0;

	while (nb_done < nb_filled) {
		const int rc = sendmmsg(queue->fd, queue->messages + nb_done, nb_filled - nb_done,
					MSG_DONTWAIT);

		if (rc > 0)
			nb_done += (uint32_t)rc;
		else if (errno != EINTR) {
			count_refused(queue, errno);
			nb_done++;
		}
	}
	rte_pktmbuf_free_bulk(mbufs, nb);
	return nb;
}

/* ---- the control thread ---- */

/** Flags and MTU of the interface; 0 or -errno, -ENODEV also if it is another one of its name. */
static int
read_interface(struct packet_port *own, short *flags)
{
	struct ifreq request;

	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, own->interface, sizeof(request.ifr_name));
	if (ioctl(own->tx[0].fd, SIOCGIFINDEX, &request) != 0 || request.ifr_ifindex != own->index)
		return -ENODEV;
	if (ioctl(own->tx[0].fd, SIOCGIFMTU, &request) != 0)
		return -errno;
	__atomic_store_n(&own->mtu, (uint32_t)request.ifr_mtu, __ATOMIC_RELAXED);
	if (ioctl(own->tx[0].fd, SIOCGIFFLAGS, &request) != 0)
		return -errno;
	*flags = request.ifr_flags;
	return 0;
}

/** Add up what the sockets have lost; reading sets their counters to 0. */
static void
count_missed(struct packet_port *own)
{
	struct tpacket_stats counted;

	for (uint32_t q = 0; q < own->nb_rx; q++) {
		socklen_t length = sizeof(counted);

		if (getsockopt(own->rx[q].fd, SOL_PACKET, PACKET_STATISTICS, &counted, &length) ==
		    0)
			own->nb_missed += counted.tp_drops;
	}
}

static void
packet_read(struct onvm_port *port, struct onvm_port_losses *losses, bool *is_down)
{
	struct packet_port *own = port->priv;
	short flags = 0;

	count_missed(own);
	losses->nb_missed = own->nb_missed;
	for (uint32_t q = 0; q < own->nb_rx; q++) {
		losses->nb_rx_errors += onvm_vnet_bad(&own->rx[q].received);
		port->nb_posted[q] = onvm_vnet_posted(&own->rx[q].received);
	}
	for (uint32_t q = 0; q < own->nb_tx; q++) {
		losses->nb_refused += __atomic_load_n(&own->tx[q].nb_refused, __ATOMIC_RELAXED);
		losses->nb_large += __atomic_load_n(&own->tx[q].nb_large, __ATOMIC_RELAXED);
		losses->nb_down += __atomic_load_n(&own->tx[q].nb_down, __ATOMIC_RELAXED);
	}
	if (read_interface(own, &flags) == -ENODEV)
		__atomic_store_n(&port->is_gone, 1, __ATOMIC_RELEASE);
	*is_down = (flags & (IFF_UP | IFF_RUNNING)) != (IFF_UP | IFF_RUNNING);
}

static void
close_sockets(struct packet_port *own)
{
	for (uint32_t q = 0; q < own->nb_rx; q++) {
		if (own->rx[q].fd >= 0)
			close(own->rx[q].fd);
		own->rx[q].fd = -1;
	}
	for (uint32_t q = 0; q < own->nb_tx; q++) {
		if (own->tx[q].fd >= 0)
			close(own->tx[q].fd);
		own->tx[q].fd = -1;
	}
}

static void
packet_close(struct onvm_port *port)
{
	struct packet_port *own = port->priv;

	for (uint32_t q = 0; q < own->nb_rx; q++)
		onvm_vnet_free(&own->rx[q].received);
	close_sockets(own);
	free(own->rx);
	free(own->tx);
	free(own);
	port->priv = NULL;
}

/* ---- opening ---- */

static int
set_option(int fd, int option, int value)
{
	return setsockopt(fd, SOL_PACKET, option, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/** Room for bursts; without CAP_NET_ADMIN as much as the system lets everyone have. */
static void
set_room(int fd, int forced, int ordinary, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) != 0)
		(void)setsockopt(fd, SOL_SOCKET, ordinary, &bytes, sizeof(bytes));
}

/** Let a socket receive nothing, so that no queue has frames before all share them. */
static int
mute(int fd)
{
	struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
	const struct sock_fprog program = {.len = 1, .filter = &nothing};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0 ?
		       0 :
		       -errno;
}

static int
unmute(int fd)
{
	const int unused = 0;

	return setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) == 0 ? 0 :
											    -errno;
}

/** A packet socket on the interface; @p protocol 0: to send only. @return it or -errno. */
static int
open_socket(const struct packet_port *own, uint16_t protocol)
{
	const struct sockaddr_ll address = {.sll_family = AF_PACKET,
					    .sll_protocol = htons(protocol),
					    .sll_ifindex = own->index};
	/* Without a protocol it receives nothing, from any interface, before it is bound to one. */
	const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return -errno;
	rc = set_option(fd, PACKET_VNET_HDR, 1);
	if (rc == 0 && protocol != 0)
		rc = set_option(fd, PACKET_AUXDATA, 1);
	if (rc == 0 && protocol != 0)
		rc = set_option(fd, PACKET_IGNORE_OUTGOING, 1);
	if (rc == 0 && protocol != 0)
		rc = mute(fd);
	if (rc == 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
		rc = -errno;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

/** Let the sockets of several queues share the flows. */
static int
share(const struct packet_port *own)
{
	/* A group has an "ignore outgoing" of its own; without it, what we send would come in. */
	const uint32_t mode = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
	int group = (int)((mode | PACKET_FANOUT_FLAG_UNIQUEID) << 16);
	socklen_t length = sizeof(group);
	int rc = set_option(own->rx[0].fd, PACKET_FANOUT, group);

	if (rc != 0)
		return rc;
	if (getsockopt(own->rx[0].fd, SOL_PACKET, PACKET_FANOUT, &group, &length) != 0)
		return -errno;
	group = (group & 0xffff) | (int)(mode << 16);
	for (uint32_t q = 1; q < own->nb_rx && rc == 0; q++)
		rc = set_option(own->rx[q].fd, PACKET_FANOUT, group);
	return rc;
}

/** Sockets on the interface, in place of those that may be there. */
static int
open_sockets(struct packet_port *own)
{
	struct packet_mreq promiscuous = {.mr_type = PACKET_MR_PROMISC};
	int rc;

	own->index = (int)if_nametoindex(own->interface);
	if (own->index == 0)
		return -ENODEV;
	promiscuous.mr_ifindex = own->index;
	for (uint32_t q = 0; q < own->nb_tx; q++) {
		own->tx[q].fd = open_socket(own, 0);
		if (own->tx[q].fd < 0)
			return own->tx[q].fd;
		set_room(own->tx[q].fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BYTES);
		rc = own->options.skips_qdisc ? set_option(own->tx[q].fd, PACKET_QDISC_BYPASS, 1) :
						0;
		if (rc != 0)
			return rc;
	}
	for (uint32_t q = 0; q < own->nb_rx; q++) {
		own->rx[q].fd = open_socket(own, ETH_P_ALL);
		if (own->rx[q].fd < 0)
			return own->rx[q].fd;
		set_room(own->rx[q].fd, SO_RCVBUFFORCE, SO_RCVBUF, (int)own->options.receive_bytes);
	}
	rc = own->nb_rx > 1 ? share(own) : 0;
	if (rc == 0 && own->options.is_promiscuous &&
	    setsockopt(own->rx[0].fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous,
		       sizeof(promiscuous)) != 0)
		rc = -errno;
	for (uint32_t q = 0; q < own->nb_rx && rc == 0; q++)
		rc = unmute(own->rx[q].fd);
	return rc;
}

/** Make room for the queues of a port, without sockets yet. */
static struct packet_port *
allocate(const struct onvm_packet_options *options, uint32_t nb_rx, uint32_t nb_tx)
{
	struct packet_port *own = calloc(1, sizeof(*own));

	if (own == NULL)
		return NULL;
	own->options = *options;
	snprintf(own->interface, sizeof(own->interface), "%s", options->interface);
	own->options.interface = own->interface;
	own->rx = calloc(nb_rx, sizeof(*own->rx));
	own->tx = calloc(nb_tx, sizeof(*own->tx));
	if (own->rx == NULL || own->tx == NULL) {
		free(own->rx);
		free(own->tx);
		free(own);
		return NULL;
	}
	own->nb_rx = nb_rx;
	own->nb_tx = nb_tx;
	for (uint32_t q = 0; q < nb_rx; q++)
		own->rx[q].fd = -1;
	for (uint32_t q = 0; q < nb_tx; q++)
		own->tx[q].fd = -1;
	return own;
}

/** Let the descriptors that workers use mean the sockets of @p fresh; its own are closed. */
static void
replace_sockets(struct packet_port *own, struct packet_port *fresh)
{
	count_missed(own);
	for (uint32_t q = 0; q < own->nb_rx; q++)
		(void)dup3(fresh->rx[q].fd, own->rx[q].fd, O_CLOEXEC);
	for (uint32_t q = 0; q < own->nb_tx; q++)
		(void)dup3(fresh->tx[q].fd, own->tx[q].fd, O_CLOEXEC);
	own->index = fresh->index;
}

static bool
packet_revive(struct onvm_port *port)
{
	struct packet_port *own = port->priv, *fresh;
	short flags = 0;
	bool is_open;

	if (read_interface(own, &flags) != -ENODEV)
		return false;
	__atomic_store_n(&port->is_gone, 1, __ATOMIC_RELEASE);
	if (if_nametoindex(own->interface) == 0)
		return false;
	/* A namespace or a container has been made again, with an interface of the same name. */
	fresh = allocate(&own->options, own->nb_rx, own->nb_tx);
	if (fresh == NULL)
		return false;
	is_open = open_sockets(fresh) == 0;
	if (is_open) {
		replace_sockets(own, fresh);
		(void)read_interface(own, &flags);
		__atomic_store_n(&port->is_gone, 0, __ATOMIC_RELEASE);
	}
	close_sockets(fresh);
	free(fresh->rx);
	free(fresh->tx);
	free(fresh);
	return is_open;
}

static const struct onvm_port_ops packet_ops = {
	.rx_burst = packet_rx,
	.tx_burst = packet_tx,
	.read = packet_read,
	.revive = packet_revive,
	.close = packet_close,
};

int
onvm_port_packet_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		      char *error, size_t error_size)
{
	const struct onvm_packet_options *options = kind_options;
	struct packet_port *own = allocate(options, options->nb_queues, nb_workers);
	short flags = 0;
	int rc;

	if (own == NULL)
		return -ENOMEM;
	port->priv = own;
	for (uint32_t q = 0; q < RTE_DIM(port->pools) && options->node >= 0; q++)
		port->pools[q] = onvm_packet_pool(port->memory, (uint32_t)options->node);
	rc = onvm_packet_memory_add_large(port->memory);
	if (rc == 0)
		rc = open_sockets(own);
	if (rc == 0)
		rc = read_interface(own, &flags);
	if (rc != 0) {
		if (rc == -EPERM)
			snprintf(error, error_size,
				 "packet sockets need the capability CAP_NET_RAW; run as root or: "
				 "setpriv --ambient-caps +net_raw,+net_admin");
		else if (rc == -EINVAL && own->nb_rx > 1)
			snprintf(error, error_size, "several queues need Linux 5.15 or later");
		packet_close(port);
		return rc;
	}
	for (uint32_t q = 0; q < own->nb_rx; q++)
		port->wake_fds[q] = own->rx[q].fd;
	port->ops = &packet_ops;
	port->nb_queues = (uint16_t)own->nb_rx;
	port->nb_wake_fds = (uint16_t)own->nb_rx;
	port->takes_offloads = true;
	return 0;
}
