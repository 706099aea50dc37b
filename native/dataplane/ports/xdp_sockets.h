/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_XDP_SOCKETS_H_
#define _ONVM_XDP_SOCKETS_H_

/**
 * @file
 * The XDP sockets of a port, and the packets that the kernel could not put into them.
 *
 * DPDK's driver opens them and does not give them out, and of what the kernel counts it reports only
 * a part: packets that find the receive ring full are in no statistics of it. So we look which
 * sockets there are after the driver has opened its own.
 *
 * Threads: the control thread, which alone opens ports.
 */

#include <stdint.h>

#define ONVM_XDP_SOCKETS_MAX 16

struct onvm_xdp_sockets {
	int fds[ONVM_XDP_SOCKETS_MAX];
	uint32_t nb;
};

/** File descriptors below this are looked at. */
#define ONVM_XDP_FDS 4096

/** The XDP sockets of this process, by descriptor. */
struct onvm_xdp_fds {
	uint64_t words[ONVM_XDP_FDS / 64];
};

/** Find all XDP sockets of this process. */
void onvm_xdp_fds_find(struct onvm_xdp_fds *found);

/** The sockets that were opened since @p before. */
void onvm_xdp_sockets_init(struct onvm_xdp_sockets *sockets, const struct onvm_xdp_fds *before);

/** Packets that found the receive ring of their socket full. */
uint64_t onvm_xdp_sockets_missed(const struct onvm_xdp_sockets *sockets);

#endif /* _ONVM_XDP_SOCKETS_H_ */
