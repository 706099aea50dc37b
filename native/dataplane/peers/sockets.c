/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/sockets.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peers/peers.h"

/** Room in the kernel for bursts, in bytes. */
#define ROOM_BYTES (8 << 20)
/** Time for which the kernel may poll a device for a busy worker. */
#define BUSY_POLL_US 50
/** Source ports that are tried. */
#define BIND_TRIES 64
#define TTL_MAX 255

static void
set_option(int fd, int level, int option, int value)
{
	/* An option that a kernel lacks or refuses costs speed, never packets that it has taken. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static int
open_udp(const struct onvm_socket_options *options)
{
	const bool is_v4 = options->ip_version == 4;
	const int fd =
		socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (!is_v4)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	return fd;
}

static int
bind_to(int fd, const struct onvm_socket_options *options, uint16_t port)
{
	union onvm_sockaddr address;
	const socklen_t length =
		onvm_sockaddr_set(&address, options->ip_version, options->address, port);

	return bind(fd, &address.any, length) == 0 ? 0 : -errno;
}

int
onvm_socket_receive(const struct onvm_socket_options *options, uint16_t port)
{
	const int fd = open_udp(options);
	int rc;

	if (fd < 0)
		return fd;
	if (options->is_shared)
		set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	set_option(fd, SOL_SOCKET, SO_RCVBUF, ROOM_BYTES);
	set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES);
	set_option(fd, SOL_UDP, UDP_GRO, 1);
	if (options->is_busy)
		set_option(fd, SOL_SOCKET, SO_BUSY_POLL, BUSY_POLL_US);
	if (options->ip_version == 4)
		set_option(fd, IPPROTO_IP, IP_RECVTOS, 1);
	else
		set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
	rc = bind_to(fd, options, port);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

int
onvm_socket_send(const struct onvm_socket_options *options)
{
	struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
	const struct sock_fprog program = {.len = 1, .filter = &nothing};
	const int fd = open_udp(options);
	int rc = -EADDRINUSE;

	if (fd < 0)
		return fd;
	set_option(fd, SOL_SOCKET, SO_SNDBUF, ROOM_BYTES);
	set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, ROOM_BYTES);
	if (options->ip_version == 4) {
		set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
		set_option(fd, IPPROTO_IP, IP_TTL, TTL_MAX);
	} else {
		set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
		set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, TTL_MAX);
	}
	/* No answer comes to these ports, and no stranger shall fill the kernel's memory by them. */
	(void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
	for (int i = 0; i < BIND_TRIES && rc == -EADDRINUSE; i++) {
		uint16_t random = 0;

		(void)getrandom(&random, sizeof(random), 0);
		rc = bind_to(fd, options,
			     (uint16_t)(ONVM_ENTROPY_FIRST +
					random % (ONVM_ENTROPY_END - ONVM_ENTROPY_FIRST)));
	}
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

uint16_t
onvm_socket_port(int fd)
{
	union onvm_sockaddr address = {0};
	socklen_t length = sizeof(address);

	/* The port lies at the same offset in both. */
	return getsockname(fd, &address.any, &length) == 0 ? ntohs(address.v4.sin_port) : 0;
}

uint64_t
onvm_socket_overflows(int fd)
{
	/* As SO_RXQ_OVFL tells with the next packet, but also when no further one comes. */
	uint32_t values[SK_MEMINFO_VARS] = {0};
	socklen_t length = sizeof(values);

	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values, &length) == 0 ?
		       values[SK_MEMINFO_DROPS] :
		       0;
}
