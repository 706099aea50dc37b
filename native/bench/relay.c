/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The least that a box in user space costs on packet sockets: frames from one interface to the
 * other and back, as the kernel has them, and no program looks at them.
 *
 * 	onvm-bench-relay INTERFACE INTERFACE
 *
 * One thread sleeps until a frame comes; there is no NF, no ring and no table. It runs until it is
 * ended.
 */

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BURST 32
#define FRAME_BYTES (64 << 10)
#define SOCKET_BYTES (16 << 20)

struct frame {
	struct virtio_net_hdr header;
	uint8_t data[FRAME_BYTES];
};

static int
open_socket(const char *interface, int protocol)
{
	const struct sockaddr_ll address = {.sll_family = AF_PACKET,
					    .sll_protocol = htons((uint16_t)protocol),
					    .sll_ifindex = (int)if_nametoindex(interface)};
	const struct packet_mreq promiscuous = {.mr_ifindex = address.sll_ifindex,
						.mr_type = PACKET_MR_PROMISC};
	const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), yes = 1,
		  bytes = SOCKET_BYTES;

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof(yes)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof(yes)) != 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) !=
		    0) {
		perror(interface);
		exit(1);
	}
	return fd;
}

/** Pass on what is there. */
static void
relay(int from, int to, struct frame *frames)
{
	struct mmsghdr messages[BURST];
	struct iovec parts[BURST];
	int nb, nb_sent = 0;

	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BURST; i++) {
		parts[i] = (struct iovec){&frames[i], sizeof(frames[i])};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	nb = recvmmsg(from, messages, BURST, MSG_DONTWAIT, NULL);
	for (int i = 0; i < nb; i++)
		parts[i].iov_len = messages[i].msg_len;
	while (nb_sent < nb) {
		const int rc = sendmmsg(to, messages + nb_sent, (unsigned int)(nb - nb_sent),
					MSG_DONTWAIT);

		nb_sent += rc > 0 ? rc : 1;
	}
}

int
main(int argc, char **argv)
{
	struct frame *frames = calloc(BURST, sizeof(*frames));
	struct pollfd polls[2];
	int senders[2];

	if (argc != 3 || frames == NULL)
		return 2;
	for (int i = 0; i < 2; i++) {
		polls[i] = (struct pollfd){.fd = open_socket(argv[1 + i], ETH_P_ALL),
					   .events = POLLIN};
		senders[i] = open_socket(argv[1 + i], 0);
	}
	for (;;) {
		if (poll(polls, 2, -1) < 0)
			return 1;
		for (int i = 0; i < 2; i++)
			if (polls[i].revents != 0)
				relay(polls[i].fd, senders[1 - i], frames);
	}
}
