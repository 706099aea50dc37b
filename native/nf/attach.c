/* SPDX-License-Identifier: Apache-2.0 */
#include "attach.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "held.h"
#include "permissions.h"
#include "runtime.h"

#define NB_FDS_MAX (2 + ONVM_WORKERS_MAX)

/** Leave a line for the user and give back @p result. */
__attribute__((format(printf, 3, 4))) static int
fail(struct onvm_nf_host *host, int result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(host->error, sizeof(host->error), format, args);
	va_end(args);
	return result;
}

static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/** Connect to the manager, waiting for it to listen. */
static int
connect_to(struct onvm_nf_host *host, const char *path, uint32_t timeout_ms)
{
	const uint64_t end_ms = now_ms() + timeout_ms;
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
		return fail(host, -ENAMETOOLONG, "attach socket path '%s' has more than %zu bytes",
			    path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	for (;;) {
		const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return fail(host, -errno, "socket: %s", strerror(errno));
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
			host->socket = fd;
			return 0;
		}
		const int error = errno;

		close(fd);
		if (error != ENOENT && error != ECONNREFUSED && error != EAGAIN && error != EINTR)
			return fail(host, -error, "attach socket '%s': %s", path, strerror(error));
		if (now_ms() >= end_ms)
			return fail(host, -ETIMEDOUT, "no manager listens at '%s'", path);
		usleep(1000);
	}
}

/** Receive the reply and its file descriptors; @return how many of them, or -errno. */
static int
receive_reply(struct onvm_nf_host *host, int *fds)
{
	char control[CMSG_SPACE(sizeof(int) * NB_FDS_MAX)];
	struct iovec vector = {&host->reply, sizeof(host->reply)};
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t length;
	int nb_fds = 0;

	do {
		length = recvmsg(host->socket, &message, MSG_CMSG_CLOEXEC);
	} while (length < 0 && errno == EINTR);
	if (length < 0)
		return fail(host, -errno, "attach reply: %s", strerror(errno));
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL;
	     part = CMSG_NXTHDR(&message, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		nb_fds = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(part), (size_t)nb_fds * sizeof(int));
	}
	if (length == 0)
		return fail(host, -ECONNRESET, "the manager closed the attach socket");
	if ((size_t)length != sizeof(host->reply) || host->reply.magic != ONVM_WIRE_MAGIC)
		return fail(host, -EPROTO, "the attach socket is not a manager's of this layout");
	if (host->reply.version != ONVM_WIRE_VERSION)
		return fail(host, -EPROTO, "manager has layout version %u, this NF host version %u",
			    host->reply.version, ONVM_WIRE_VERSION);
	host->reply.error[sizeof(host->reply.error) - 1] = '\0';
	if (host->reply.status != 0)
		return fail(host, host->reply.status < 0 ? host->reply.status : -EPROTO, "%s",
			    host->reply.error);
	return nb_fds;
}

/** Map a file, for reading only if @p reads_only; its first @p populated bytes are in use at once. */
static void *
map_file(int fd, uint64_t bytes, uint64_t populated, bool reads_only)
{
	const int protection = reads_only ? PROT_READ : PROT_READ | PROT_WRITE;
	struct stat status;
	void *base;

	if (fstat(fd, &status) != 0 || (uint64_t)status.st_size < bytes)
		return MAP_FAILED;
	base = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
	if (base != MAP_FAILED &&
	    madvise(base, populated, reads_only ? MADV_POPULATE_READ : MADV_POPULATE_WRITE) != 0)
		(void)madvise(base, populated, MADV_WILLNEED); /* before Linux 5.14 */
	return base;
}

/** Map the files from the manager and take our ends of the rings. */
static int
map_reply(struct onvm_nf_host *host, int *fds, int nb_fds)
{
	const struct onvm_attach_reply *reply = &host->reply;
	const uint32_t length = reply->ring_length;
	const bool reads_only = onvm_nf_host_reads_only(host);

	if (reply->nb_workers == 0 || reply->nb_workers > ONVM_WORKERS_MAX || length == 0 ||
	    (length & (length - 1)) != 0 || nb_fds != (int)(2 + reply->nb_workers) ||
	    reply->memory_bytes < (uint64_t)reply->nb_buffers * reply->buffer_stride ||
	    reply->first_large > reply->nb_buffers || reply->large_bytes > UINT16_MAX ||
	    reply->area_bytes < onvm_area_bytes(length, reply->nb_workers))
		return fail(host, -EPROTO, "the manager's attach reply contradicts itself");
	host->memory = map_file(fds[0], reply->memory_bytes,
				(uint64_t)reply->first_large * reply->buffer_stride, reads_only);
	host->area = map_file(fds[1], reply->area_bytes, reply->area_bytes, false);
	if (host->memory == MAP_FAILED || host->area == MAP_FAILED)
		return fail(host, -ENOMEM, "cannot map packet memory (%llu bytes)",
			    (unsigned long long)reply->memory_bytes);
	if (reads_only)
		onvm_explain_stores(host->memory, reply->memory_bytes);
	host->control = (struct onvm_area_control *)host->area;
	for (uint32_t worker = 0; worker < reply->nb_workers; worker++) {
		struct onvm_worker_link *link = &host->links[worker];
		uint8_t *area = host->area;

		onvm_ring_init(&link->to_nf,
			       area + onvm_ring_offset(length, worker, ONVM_RING_TO_NF), length);
		onvm_ring_init(&link->from_nf,
			       area + onvm_ring_offset(length, worker, ONVM_RING_FROM_NF), length);
		onvm_ring_init(&link->loan, area + onvm_ring_offset(length, worker, ONVM_RING_LOAN),
			       length);
		link->event_fd = fds[2 + worker];
		fds[2 + worker] = -1;
	}
	for (uint32_t i = 0; i < host->nb_stages; i++)
		host->stages[i].ctx.counters = host->control->stage[i].counters;
	host->attention_seen = 0;
	host->nb_originated = 0;
	return 0;
}

int
onvm_nf_host_attach(struct onvm_nf_host *host, const char *path,
		    const struct onvm_attach_hello *hello, uint32_t timeout_ms)
{
	struct onvm_attach_hello own = *hello;
	int fds[NB_FDS_MAX];
	int nb_fds, rc;

	if (host->is_child)
		onvm_end_child();
	onvm_nf_host_detach(host);
	own.magic = ONVM_WIRE_MAGIC;
	own.version = ONVM_WIRE_VERSION;
	own.pid = (uint32_t)getpid();
	if (own.nb_stages != host->nb_stages || own.nb_stages == 0)
		return fail(host, -EINVAL, "%u stages are announced, %u are set", own.nb_stages,
			    host->nb_stages);
	if (own.burst_size == 0 || own.burst_size > ONVM_BURST_MAX)
		return fail(host, -EINVAL, "burst size %u is not in 1..%u", own.burst_size,
			    ONVM_BURST_MAX);
	host->burst_size = own.burst_size;
	rc = connect_to(host, path, timeout_ms);
	if (rc != 0)
		return rc;
	for (int i = 0; i < NB_FDS_MAX; i++)
		fds[i] = -1;
	if (send(host->socket, &own, sizeof(own), MSG_NOSIGNAL) != (ssize_t)sizeof(own)) {
		rc = fail(host, -errno, "attach: %s", strerror(errno));
	} else {
		nb_fds = receive_reply(host, fds);
		rc = nb_fds < 0 ? nb_fds : map_reply(host, fds, nb_fds);
	}
	for (int i = 0; i < NB_FDS_MAX; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (rc != 0)
		onvm_nf_host_detach(host);
	return rc;
}

void
onvm_nf_host_detach(struct onvm_nf_host *host)
{
	if (host->socket >= 0)
		close(host->socket);
	host->socket = -1;
	if (host->memory != NULL && host->memory != MAP_FAILED)
		munmap(host->memory, host->reply.memory_bytes);
	if (host->area != NULL && host->area != MAP_FAILED) {
		for (uint32_t i = 0; i < host->nb_stages; i++)
			host->stages[i].ctx.counters = host->unused_counters;
		munmap(host->area, host->reply.area_bytes);
	}
	host->memory = NULL;
	host->area = NULL;
	host->control = NULL;
	for (uint32_t i = 0; i < host->nb_stages; i++)
		if (host->stages[i].held != NULL)
			onvm_held_forget(host->stages[i].held);
	for (uint32_t worker = 0; worker < ONVM_WORKERS_MAX; worker++) {
		if (host->links[worker].event_fd >= 0)
			close(host->links[worker].event_fd);
		host->links[worker].event_fd = -1;
	}
}

bool
onvm_nf_host_is_alive(const struct onvm_nf_host *host)
{
	struct pollfd poller = {.fd = host->socket, .events = POLLIN};

	if (host->socket < 0)
		return false;
	if (poll(&poller, 1, 0) < 0)
		return true;
	return (poller.revents & (POLLHUP | POLLERR | POLLNVAL)) == 0;
}
