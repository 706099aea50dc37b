/* SPDX-License-Identifier: Apache-2.0 */
#include "control/attach_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t
links_bytes(void)
{
	return (sizeof(struct onvm_link) + 63) & ~63ull;
}

/** Make one worker's end of a host's rings. */
static struct onvm_link *
create_link(struct onvm_dataplane *dp, uint32_t worker, uint32_t host, uint8_t *area,
	    uint32_t nb_loaned, int node)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	const uint32_t length = dp->config.ring_length;
	struct onvm_link *link = aligned_alloc(64, links_bytes());

	if (link == NULL)
		return NULL;
	memset(link, 0, sizeof(*link));
	link->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (link->event_fd < 0 ||
	    epoll_ctl(dp->workers[worker].poll_fd, EPOLL_CTL_ADD, link->event_fd, &event) != 0) {
		if (link->event_fd >= 0)
			close(link->event_fd);
		free(link);
		return NULL;
	}
	onvm_ring_init(&link->to_nf, area + onvm_ring_offset(length, worker, ONVM_RING_TO_NF),
		       length);
	onvm_ring_init(&link->from_nf, area + onvm_ring_offset(length, worker, ONVM_RING_FROM_NF),
		       length);
	onvm_ring_init(&link->loan, area + onvm_ring_offset(length, worker, ONVM_RING_LOAN),
		       length);
	link->control = (struct onvm_area_control *)area;
	link->id = onvm_link_id(host, worker);
	link->host = (uint16_t)host;
	link->generation = dp->steering.hosts[host].generation;
	link->nb_stages = dp->steering.hosts[host].nb_stages;
	link->length = length;
	link->high = length * dp->config.high_percent / 100;
	link->low = length * dp->config.low_percent / 100;
	link->nb_loans_wanted = worker == 0 ? nb_loaned : 0;
	link->loan_pool = onvm_packet_pool(&dp->memory, node < 0 ? dp->config.worker_nodes[worker] :
								   (uint32_t)node);
	return link;
}

/** Create and map an attach area. */
static int
create_area(const struct onvm_dataplane *dp, uint8_t **area)
{
	const uint64_t bytes = onvm_area_bytes(dp->config.ring_length, dp->config.nb_workers);
	const int fd = memfd_create("onvm-attach", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		*area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	else
		*area = MAP_FAILED;
	if (*area == MAP_FAILED) {
		const int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

void
onvm_attach_files_free(struct onvm_dataplane *dp, uint32_t host)
{
	const uint64_t bytes = onvm_area_bytes(dp->config.ring_length, dp->config.nb_workers);
	struct onvm_link *first = dp->links[0][host];

	if (first != NULL)
		munmap(first->control, bytes);
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		struct onvm_link *link = dp->links[w][host];

		if (link == NULL)
			continue;
		/* Closing is not enough: the host may hold the eventfd open, and so in our set. */
		epoll_ctl(dp->workers[w].poll_fd, EPOLL_CTL_DEL, link->event_fd, NULL);
		close(link->event_fd);
		free(link);
		dp->links[w][host] = NULL;
	}
}

int
onvm_attach_files_make(struct onvm_dataplane *dp, uint32_t slot, uint32_t nb_loaned, int node,
		       struct onvm_dp_attach_files *files)
{
	const uint64_t bytes = onvm_area_bytes(dp->config.ring_length, dp->config.nb_workers);
	uint8_t *area;
	const int fd = create_area(dp, &area);

	if (fd < 0)
		return fd;
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		dp->links[w][slot] = create_link(dp, w, slot, area, nb_loaned, node);
		if (dp->links[w][slot] == NULL) {
			if (w == 0)
				munmap(area, bytes);
			onvm_attach_files_free(dp, slot);
			close(fd);
			return -ENOMEM;
		}
	}
	*files = (struct onvm_dp_attach_files){
		.memory_fd = dp->memory.fd,
		.area_fd = fd,
		.nb_workers = dp->config.nb_workers,
		.buffer_stride = dp->memory.stride,
		.nb_buffers = dp->memory.nb_buffers,
		.first_large = dp->memory.first_large,
		.large_bytes = dp->memory.large_bytes,
		.memory_bytes = dp->memory.bytes,
		.area_bytes = bytes,
	};
	for (uint32_t w = 0; w < dp->config.nb_workers; w++)
		files->event_fds[w] = dp->links[w][slot]->event_fd;
	return 0;
}
