/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <rte_common.h>

#define NS_PER_MS 1000000ull
#define DETECT_NS (ONVM_PROBE_DETECT_MS * NS_PER_MS)
#define GRACE_NS (ONVM_PROBE_GRACE_MS * NS_PER_MS)
/** Packets taken before timers are looked at again. */
#define RECEIVE_MAX 256

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/** Time to the next packet: the interval less up to a quarter (RFC 5880 section 6.8.7). */
static uint64_t
next_interval(struct onvm_prober *prober)
{
	const uint64_t whole = ONVM_PROBE_INTERVAL_MS * NS_PER_MS;

	prober->seed = prober->seed * 6364136223846793005ull + 1442695040888963407ull;
	return whole - (prober->seed >> 33) % (whole / 4);
}

static void
send_to(const struct onvm_prober *prober, const struct onvm_probed *probed)
{
	uint8_t data[ONVM_BFD_BYTES];

	onvm_bfd_write(&probed->session, data);
	/* The other end misses a packet that cannot be sent, and that is what probes are for. */
	(void)sendto(prober->fd, data, sizeof(data), MSG_DONTWAIT, &probed->address.any,
		     probed->address_length);
}

static void
receive_all(struct onvm_prober *prober)
{
	for (int i = 0; i < RECEIVE_MAX; i++) {
		union onvm_sockaddr from;
		socklen_t length = sizeof(from);
		uint8_t data[64];
		const ssize_t nb =
			recvfrom(prober->fd, data, sizeof(data), MSG_DONTWAIT, &from.any, &length);
		struct onvm_probed *probed;
		uint16_t peer;

		if (nb < 0)
			return;
		/* P2: pairs with the release store P1 in publish_peers(). */
		peer = onvm_peers_find(__atomic_load_n(&prober->peers->index, __ATOMIC_ACQUIRE),
				       &from);
		probed = &prober->probed[peer];
		if (!probed->is_used || !onvm_bfd_receive(&probed->session, data, (uint32_t)nb))
			continue;
		__atomic_store_n(&probed->heard_ns, now_ns(), __ATOMIC_RELAXED);
	}
}

/** Look at the clock for one peer; @return when to look again. */
static uint64_t
look(struct onvm_prober *prober, struct onvm_probed *probed, uint64_t now, bool *has_changed)
{
	struct onvm_bfd *session = &probed->session;
	bool is_down;

	if (session->state > ONVM_BFD_DOWN && now > probed->heard_ns + DETECT_NS)
		onvm_bfd_go_down(session, ONVM_BFD_EXPIRED);
	probed->was_up |= session->state == ONVM_BFD_UP;
	is_down = probed->was_up ? session->state != ONVM_BFD_UP :
				   now > probed->added_ns + GRACE_NS;
	if (is_down != probed->is_down) {
		__atomic_store_n(&probed->is_down, is_down, __ATOMIC_RELEASE);
		*has_changed = true;
	}
	if (now >= probed->due_ns) {
		send_to(prober, probed);
		probed->due_ns = now + next_interval(prober);
	}
	return probed->due_ns;
}

/** Look at the clock for all; @return when to look again. */
static uint64_t
look_at_all(struct onvm_prober *prober)
{
	const uint64_t now = now_ns(), one = 1;
	uint64_t next = now + ONVM_PROBE_INTERVAL_MS * NS_PER_MS;
	bool has_changed = false;

	for (uint32_t peer = 1; peer < ONVM_PEERS_MAX; peer++)
		if (prober->probed[peer].is_used)
			next = RTE_MIN(next,
				       look(prober, &prober->probed[peer], now, &has_changed));
	if (has_changed && write(prober->notice_fd, &one, sizeof(one)) < 0)
		return next; /* it has been told already */
	return next;
}

static void *
run(void *arg)
{
	struct onvm_prober *prober = arg;
	struct pollfd polled[2] = {{.fd = prober->fd, .events = POLLIN},
				   {.fd = prober->stop_fd, .events = POLLIN}};
	const struct sched_param urgent = {.sched_priority = 1};

	/* Late answers look like a dead host. Where that is not permitted it must do without. */
	(void)pthread_setschedparam(pthread_self(), SCHED_RR, &urgent);
	while (!__atomic_load_n(&prober->must_stop, __ATOMIC_ACQUIRE)) {
		uint64_t next, now;
		struct timespec pause;

		pthread_mutex_lock(&prober->lock);
		receive_all(prober);
		next = look_at_all(prober);
		pthread_mutex_unlock(&prober->lock);
		now = now_ns();
		if (next <= now)
			continue;
		pause = (struct timespec){.tv_sec = (time_t)((next - now) / 1000000000ull),
					  .tv_nsec = (long)((next - now) % 1000000000ull)};
		(void)ppoll(polled, 2, &pause, NULL);
	}
	return NULL;
}

int
onvm_prober_start(struct onvm_prober *prober, uint8_t ip_version, const uint8_t *address,
		  const struct onvm_peers *peers, int notice_fd)
{
	union onvm_sockaddr own;
	const socklen_t length = onvm_sockaddr_set(&own, ip_version, address, ONVM_BFD_PORT);
	int rc;

	memset(prober, 0, sizeof(*prober));
	prober->peers = peers;
	prober->notice_fd = notice_fd;
	prober->seed = now_ns();
	prober->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	prober->fd = socket(ip_version == 4 ? AF_INET : AF_INET6,
			    SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (prober->fd < 0 || prober->stop_fd < 0 || bind(prober->fd, &own.any, length) != 0) {
		rc = -errno;
		goto fail;
	}
	pthread_mutex_init(&prober->lock, NULL);
	rc = -pthread_create(&prober->thread, NULL, run, prober);
	if (rc != 0)
		goto fail;
	prober->is_running = true;
	return 0;
fail:
	if (prober->fd >= 0)
		close(prober->fd);
	if (prober->stop_fd >= 0)
		close(prober->stop_fd);
	return rc;
}

void
onvm_prober_stop(struct onvm_prober *prober)
{
	const uint64_t one = 1;

	if (!prober->is_running)
		return;
	__atomic_store_n(&prober->must_stop, 1, __ATOMIC_RELEASE);
	if (write(prober->stop_fd, &one, sizeof(one)) < 0)
		prober->is_running = false; /* full: it wakes all the same */
	pthread_join(prober->thread, NULL);
	for (uint32_t peer = 1; peer < ONVM_PEERS_MAX; peer++) {
		struct onvm_probed *probed = &prober->probed[peer];

		if (!probed->is_used)
			continue;
		probed->session.state = ONVM_BFD_ADMIN_DOWN;
		probed->session.diagnostic = ONVM_BFD_CLOSED;
		send_to(prober, probed);
	}
	close(prober->fd);
	close(prober->stop_fd);
	pthread_mutex_destroy(&prober->lock);
	prober->is_running = false;
}

void
onvm_prober_add(struct onvm_prober *prober, uint16_t peer)
{
	struct onvm_probed *probed = &prober->probed[peer];
	const struct onvm_peer *known = &prober->peers->peers[peer];

	if (!prober->is_running)
		return;
	pthread_mutex_lock(&prober->lock);
	*probed = (struct onvm_probed){
		.is_used = true,
		.address = known->address,
		.address_length = known->address_length,
		.added_ns = now_ns(),
		.session = {.state = ONVM_BFD_DOWN,
			    .local = (uint32_t)(prober->seed >> 16) << 10 | peer,
			    .interval_us = ONVM_PROBE_INTERVAL_MS * 1000,
			    .multiplier = ONVM_PROBE_MULTIPLIER},
	};
	/* The port lies at the same offset in both. */
	probed->address.v4.sin_port = htons(ONVM_BFD_PORT);
	pthread_mutex_unlock(&prober->lock);
}

void
onvm_prober_remove(struct onvm_prober *prober, uint16_t peer)
{
	if (!prober->is_running)
		return;
	pthread_mutex_lock(&prober->lock);
	prober->probed[peer].is_used = false;
	pthread_mutex_unlock(&prober->lock);
}

void
onvm_prober_pass(struct onvm_prober *prober)
{
	if (!prober->is_running)
		return;
	pthread_mutex_lock(&prober->lock);
	pthread_mutex_unlock(&prober->lock);
}

void
onvm_prober_read(const struct onvm_prober *prober, uint16_t peer, struct onvm_dp_peer_stats *stats)
{
	const struct onvm_probed *probed = &prober->probed[peer];
	const uint64_t heard = __atomic_load_n(&probed->heard_ns, __ATOMIC_RELAXED);
	const uint64_t now = now_ns();

	stats->is_down = __atomic_load_n(&probed->is_down, __ATOMIC_ACQUIRE);
	stats->bfd_state = (uint32_t)probed->session.state;
	stats->heard_us = heard == 0 ? UINT64_MAX : now > heard ? (now - heard) / 1000 : 0;
}
