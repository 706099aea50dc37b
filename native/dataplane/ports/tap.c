/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port "tap": a network interface that is made, and exists while the port is open (Linux, tuntap).
 *
 * What the host sends to the interface comes in here, and the other way round; with the virtio-net
 * header as in packet.c. There is one file per queue, from which flows are read that the kernel
 * has given it; a worker sends into the file of its own number.
 *
 * Threads: a queue is read by one worker; sending is the kernel's to serialise.
 */

#include "ports/kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ports/vnet.h"

/** Frames that the kernel holds for a queue. */
#define QUEUE_FRAMES 4096

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap_queue {
	int fd;
	struct onvm_vnet_queue received;
};

struct tap_sender {
	uint64_t nb_refused, nb_down;
};

struct tap_port {
	char interface[IF_NAMESIZE];
	uint32_t nb_queues;
	struct tap_queue *queues;
	struct tap_sender senders[ONVM_WORKERS_MAX];
};

static uint16_t
read_frames(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct tap_port *own = port->priv;
	struct tap_queue *queue = &own->queues[index];
	uint16_t nb_kept = 0;

	nb = onvm_vnet_prepare(&queue->received, nb, port->memory, port->pools[index]);
	for (uint16_t i = 0; i < nb; i++) {
		const ssize_t length =
			readv(queue->fd, queue->received.slots[i].parts, ONVM_VNET_PARTS);
		struct rte_mbuf *mbuf;

		if (length < 0)
			break;
		mbuf = onvm_vnet_take(&queue->received, i, length, port->memory);
		if (likely(mbuf != NULL))
			mbufs[nb_kept++] = mbuf;
	}
	return nb_kept;
}

static uint16_t
tap_rx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb,
       struct onvm_rx_result *result)
{
	const struct tap_port *own = port->priv;

	return onvm_vnet_receive(&own->queues[index].received, read_frames, port, index, mbufs, nb,
				 result);
}

static uint16_t
tap_tx(struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs, uint16_t nb)
{
	struct tap_port *own = port->priv;
	const int fd = own->queues[index % own->nb_queues].fd;
	struct tap_sender *sender = &own->senders[index];

	for (uint16_t i = 0; i < nb; i++) {
		struct virtio_net_hdr header;
		struct iovec parts[2];
		ssize_t rc;

		(void)onvm_vnet_write(mbufs[i], &header);
		parts[0] = (struct iovec){&header, sizeof(header)};
		parts[1] = (struct iovec){rte_pktmbuf_mtod(mbufs[i], void *), mbufs[i]->data_len};
		do {
			rc = writev(fd, parts, 2);
		} while (rc < 0 && errno == EINTR);
		if (likely(rc >= 0))
			continue;
		if (errno == EIO)
			__atomic_store_n(&sender->nb_down, sender->nb_down + 1, __ATOMIC_RELAXED);
		else
			__atomic_store_n(&sender->nb_refused, sender->nb_refused + 1,
					 __ATOMIC_RELAXED);
	}
	rte_pktmbuf_free_bulk(mbufs, nb);
	return nb;
}

static void
tap_read(struct onvm_port *port, struct onvm_port_losses *losses, bool *is_down)
{
	const struct tap_port *own = port->priv;

	/* Whether it is up, only its namespace tells, which may be another one by now. */
	*is_down = false;
	for (uint32_t q = 0; q < own->nb_queues; q++) {
		losses->nb_rx_errors += onvm_vnet_bad(&own->queues[q].received);
		port->nb_posted[q] = onvm_vnet_posted(&own->queues[q].received);
	}
	for (uint32_t w = 0; w < ONVM_WORKERS_MAX; w++) {
		losses->nb_refused +=
			__atomic_load_n(&own->senders[w].nb_refused, __ATOMIC_RELAXED);
		losses->nb_down += __atomic_load_n(&own->senders[w].nb_down, __ATOMIC_RELAXED);
	}
}

static void
tap_close(struct onvm_port *port)
{
	struct tap_port *own = port->priv;

	for (uint32_t q = 0; own->queues != NULL && q < own->nb_queues; q++) {
		onvm_vnet_free(&own->queues[q].received);
		if (own->queues[q].fd >= 0)
			close(own->queues[q].fd);
	}
	free(own->queues);
	free(own);
	port->priv = NULL;
}

static const struct onvm_port_ops tap_ops = {
	.rx_burst = tap_rx,
	.tx_burst = tap_tx,
	.read = tap_read,
	.close = tap_close,
};

/** A queue of the interface; the first one makes it. @return its file or -errno */
static int
open_queue(struct tap_port *own, bool is_one_of_several)
{
	const unsigned int offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int header = sizeof(struct virtio_net_hdr);
	struct ifreq request;

	if (fd < 0)
		return -errno;
	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, own->interface, sizeof(request.ifr_name));
	request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
				    (is_one_of_several ? IFF_MULTI_QUEUE : 0));
	if (ioctl(fd, TUNSETIFF, &request) != 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 ||
	    /* Kernels before 6.2 do not know merged UDP. */
	    (ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) != 0 &&
	     ioctl(fd, TUNSETOFFLOAD, offloads) != 0)) {
		const int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

/** Give the new interface its MTU and take it up. */
static int
start(const struct tap_port *own, uint32_t mtu)
{
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request;
	int rc = 0;

	if (fd < 0)
		return -errno;
	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, own->interface, sizeof(request.ifr_name));
	request.ifr_qlen = QUEUE_FRAMES;
	if (ioctl(fd, SIOCSIFTXQLEN, &request) != 0)
		rc = -errno;
	request.ifr_mtu = (int)mtu;
	if (rc == 0 && mtu != 0 && ioctl(fd, SIOCSIFMTU, &request) != 0)
		rc = -errno;
	if (rc == 0 && ioctl(fd, SIOCGIFFLAGS, &request) != 0)
		rc = -errno;
	request.ifr_flags |= IFF_UP;
	if (rc == 0 && ioctl(fd, SIOCSIFFLAGS, &request) != 0)
		rc = -errno;
	close(fd);
	return rc;
}

int
onvm_port_tap_open(struct onvm_port *port, const void *kind_options, uint32_t nb_workers,
		   char *error, size_t error_size)
{
	const struct onvm_tap_options *options = kind_options;
	struct tap_port *own = calloc(1, sizeof(*own));
	int rc = 0;

	RTE_SET_USED(nb_workers);
	if (own == NULL)
		return -ENOMEM;
	port->priv = own;
	snprintf(own->interface, sizeof(own->interface), "%s", options->interface);
	own->queues = calloc(options->nb_queues, sizeof(*own->queues));
	if (own->queues == NULL)
		rc = -ENOMEM;
	for (uint32_t q = 0; rc == 0 && q < options->nb_queues; q++) {
		own->nb_queues = q + 1;
		own->queues[q].fd = open_queue(own, options->nb_queues > 1);
		port->wake_fds[q] = own->queues[q].fd;
		rc = RTE_MIN(own->queues[q].fd, 0);
	}
	if (rc == -EPERM)
		snprintf(error, error_size,
			 "making an interface needs the capability CAP_NET_ADMIN; run as root or: "
			 "setpriv --ambient-caps +net_admin");
	else if (rc == -EBUSY || rc == -EINVAL)
		snprintf(error, error_size, "an interface of this name exists and is in use");
	else if (rc == -ENOENT || rc == -ENODEV)
		snprintf(error, error_size, "the kernel has no /dev/net/tun; run: modprobe tun");
	if (rc == 0)
		rc = start(own, options->mtu);
	if (rc == 0)
		rc = onvm_packet_memory_add_large(port->memory);
	if (rc != 0) {
		tap_close(port);
		return rc;
	}
	port->ops = &tap_ops;
	port->nb_queues = (uint16_t)own->nb_queues;
	port->nb_wake_fds = (uint16_t)own->nb_queues;
	port->takes_offloads = true;
	return 0;
}
