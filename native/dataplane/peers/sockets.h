/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PEER_SOCKETS_H_
#define _ONVM_PEER_SOCKETS_H_

/**
 * @file
 * The UDP sockets of the tunnel: each worker receives on one and sends on several.
 *
 * A sending socket has a source port of its own, and all packets of a flow leave by the same one.
 * So routers, network cards and SO_REUSEPORT, which look at the outer header alone, spread flows
 * over their paths, queues and sockets (RFC 7348 section 5). The ports are from the range that the
 * RFC recommends. They are few, because only packets of one port can go out as one train.
 *
 * Threads: the control thread opens and closes.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/address.h>

/** Range of source ports, [first, end). */
#define ONVM_ENTROPY_FIRST 49152
#define ONVM_ENTROPY_END 65536

struct onvm_socket_options {
	uint8_t ip_version;
	uint8_t address[ONVM_ADDRESS_BYTES]; /**< this host's, network order */
	bool is_shared;			     /**< one of several on the port */
	bool is_busy;			     /**< polled without pause: the kernel may poll, too */
};

/** A socket that receives datagrams for @p port, trains merged; @return it or -errno. */
int onvm_socket_receive(const struct onvm_socket_options *options, uint16_t port);
/** A socket with a source port of its own that receives nothing; @return it or -errno. */
int onvm_socket_send(const struct onvm_socket_options *options);
/** Source port of a socket, host order; 0: it has none. */
uint16_t onvm_socket_port(int fd);
/** Datagrams or trains that a socket had no room for. */
uint64_t onvm_socket_overflows(int fd);

#endif /* _ONVM_PEER_SOCKETS_H_ */
