/* SPDX-License-Identifier: Apache-2.0 */

#include "ports/xdp_sockets.h"

#include <string.h>
#include <sys/socket.h>

#include <linux/if_xdp.h>

void
onvm_xdp_fds_find(struct onvm_xdp_fds *found)
{
	memset(found, 0, sizeof(*found));
	/* Asking for each number takes less than reading /proc/self/fd: most calls end at once. */
	for (int fd = 0; fd < ONVM_XDP_FDS; fd++) {
		int domain = 0;
		socklen_t size = sizeof(domain);

		if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_XDP)
			found->words[fd / 64] |= 1ull << (fd % 64);
	}
}

void
onvm_xdp_sockets_init(struct onvm_xdp_sockets *sockets, const struct onvm_xdp_fds *before)
{
	struct onvm_xdp_fds now;

	sockets->nb = 0;
	onvm_xdp_fds_find(&now);
	for (int fd = 0; fd < ONVM_XDP_FDS && sockets->nb < ONVM_XDP_SOCKETS_MAX; fd++)
		if ((now.words[fd / 64] & ~before->words[fd / 64]) >> (fd % 64) & 1)
			sockets->fds[sockets->nb++] = fd;
}

uint64_t
onvm_xdp_sockets_missed(const struct onvm_xdp_sockets *sockets)
{
	uint64_t nb_missed = 0;

	for (uint32_t i = 0; i < sockets->nb; i++) {
		struct xdp_statistics counted;
		socklen_t size = sizeof(counted);

		memset(&counted, 0, sizeof(counted)); /* kernels before 5.9 fill in less */
		if (getsockopt(sockets->fds[i], SOL_XDP, XDP_STATISTICS, &counted, &size) == 0)
			nb_missed += counted.rx_ring_full;
	}
	return nb_missed;
}
