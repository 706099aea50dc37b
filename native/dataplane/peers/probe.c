/* SPDX-License-Identifier: Apache-2.0 */
#include "peers/probe.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <rte_common.h>

#include "peers/probe_packet.h"
#include "peers/sockets.h"

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define GRACE_NS (ONVM_PROBE_GRACE_MS * NS_PER_MS)
/** A peer that seems to be silent is looked at this often, while its probes may wait for a worker. */
#define TICK_NS (10 * NS_PER_MS)
/**
 * Probes that are due within so long, or within this part of the interval, go out together: a wake-up
 * costs more than a probe.
 */
#define TOGETHER_NS (6 * NS_PER_MS)
#define TOGETHER_PART 12
#define IDLE_NS (100 * NS_PER_MS)
#define STALL_NS (ONVM_PROBE_STALL_MS * NS_PER_MS)
/** A full packet of 1,514 bytes with all headers of the tunnel. */
#define FULL_BYTES (1514 + ONVM_TUNNEL_BYTES + ONVM_SEAL_BYTES)
#define FULL_NS NS_PER_S
/** Three of full size may be missed. */
#define FULL_MISSED_MS 3500
/** Keys are used for so long. */
#define KEY_NS (3600 * NS_PER_S)
/** After new keys, a peer whose session is up does not get others at once. */
#define KEY_MIN_NS (5 * NS_PER_S)
/** Times that a peer may go down before it is held down, time that makes it quiet, longest hold. */
#define DOWNS_FREE 2
#define QUIET_NS (60 * NS_PER_S)
#define HOLD_NS NS_PER_S
#define HOLD_DOUBLINGS 5

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/** The interval that we want with so many peers, in microseconds. */
static uint32_t
interval_us(const struct onvm_prober *prober)
{
	return RTE_MAX(ONVM_PROBE_INTERVAL_MS * 1000u, prober->nb_peers * ONVM_PROBE_PEER_US);
}

/** Time within which probes go out together. */
static uint64_t
together_ns(const struct onvm_prober *prober)
{
	return RTE_MAX(TOGETHER_NS, (uint64_t)interval_us(prober) * 1000 / TOGETHER_PART);
}

/**
 * Time to the next packet: the interval less up to a quarter (RFC 5880 section 6.8.7), which is the
 * same for all that go out together, so that they go on together.
 */
static uint64_t
next_interval(const struct onvm_prober *prober, const struct onvm_bfd *session)
{
	const uint64_t whole = onvm_bfd_tx_us(session) * 1000ull;

	return whole - whole / 4 * (prober->seed >> 40) / (1u << 24);
}

static bool
is_secured(const struct onvm_prober *prober)
{
	return prober->peers->security != ONVM_SECURITY_NONE;
}

/* ---- sending ---- */

static void
send_to(struct onvm_prober *prober, uint16_t peer, uint32_t length, uint64_t now)
{
	const struct onvm_peer *known = &prober->peers->peers[peer];
	const struct onvm_probed *probed = &prober->probed[peer];
	const uint64_t unheard_ms = probed->full_heard_ns == 0 ?
					    ONVM_PROBE_UNHEARD_MS :
					    (now - probed->full_heard_ns) / NS_PER_MS;
	struct onvm_probe probe = {
		.unheard_ms = (uint16_t)RTE_MIN(unheard_ms, (uint64_t)ONVM_PROBE_UNHEARD_MS)};
	uint8_t data[FULL_BYTES];

	onvm_agreement_say(&probed->agreement, &probe.keys);
	probe.keys.sequence = ++prober->sequence;
	onvm_probe_write(data, length, prober->vni, &probed->session, &probe);
	if (is_secured(prober)) {
		struct onvm_probe_ends ends;
		uint8_t tag[ONVM_HMAC_BYTES];

		memcpy(ends.from, prober->peers->own, sizeof(ends.from));
		onvm_sockaddr_bytes(&known->address, ends.to);
		onvm_probe_tag(known->secret, &ends, data, tag);
		memcpy(data + ONVM_PROBE_TAG, tag, ONVM_PROBE_TAG_BYTES);
	}
	/* The other end misses a probe that cannot be sent, and that is what probes are for. */
	(void)sendto(prober->fd, data, length, MSG_DONTWAIT, &known->address.any,
		     known->address_length);
}

/* ---- receiving ---- */

/** Whether a genuine probe was made just now, as far as that can be told; take its keys. */
static bool
is_fresh(struct onvm_prober *prober, uint16_t peer, const struct onvm_probe *probe, uint64_t now)
{
	struct onvm_probed *probed = &prober->probed[peer];
	const bool takes_hints = probed->up_ns == 0 || now > probed->agreed_ns + KEY_MIN_NS;

	switch (onvm_agreement_take(&probed->agreement, prober->peers->peers[peer].keys,
				    &probe->keys, takes_hints)) {
	case ONVM_AGREEMENT_FRESH:
		return true;
	case ONVM_AGREEMENT_AGREED:
		probed->agreed_ns = now;
		probed->due_ns = now; /* the peer waits for our answer */
		return true;
	case ONVM_AGREEMENT_HINT:
		probed->due_ns = now;
		return false;
	case ONVM_AGREEMENT_OLD:
		return false;
	}
	return false;
}

static void
receive(struct onvm_prober *prober, const struct onvm_boxed_probe *boxed, uint64_t now)
{
	struct onvm_probed *probed = &prober->probed[boxed->peer];
	const enum onvm_bfd_state before = probed->session.state;
	struct onvm_probe probe;

	if (!probed->is_used ||
	    !onvm_probe_read(boxed->data, sizeof(boxed->data), prober->vni, &probe))
		return;
	if (is_secured(prober) && !is_fresh(prober, boxed->peer, &probe, now))
		return;
	if (!onvm_bfd_receive(&probed->session, boxed->data + ONVM_PROBE_BFD, ONVM_BFD_BYTES,
			      is_secured(prober)))
		return;
	__atomic_store_n(&probed->heard_ns, boxed->received_ns, __ATOMIC_RELAXED);
	if (boxed->length >= FULL_BYTES)
		probed->full_heard_ns = boxed->received_ns;
	probed->is_cut = probe.unheard_ms >= FULL_MISSED_MS && probed->up_ns != 0 &&
			 now > probed->up_ns + FULL_MISSED_MS * NS_PER_MS;
	if (probed->session.state != before)
		probed->due_ns = now; /* so that a session is up after three packets */
}

static void
receive_all(struct onvm_prober *prober, uint64_t now)
{
	const struct onvm_boxed_probe *boxed;

	for (uint32_t i = 0; i < prober->nb_boxes; i++)
		while ((boxed = onvm_probe_box_next(&prober->boxes[i])) != NULL) {
			receive(prober, boxed, now);
			onvm_probe_box_took(&prober->boxes[i]);
		}
}

void
onvm_prober_put(struct onvm_prober *prober, uint32_t worker, uint16_t peer, const uint8_t *data,
		uint32_t length)
{
	struct onvm_probe_box *box = &prober->boxes[worker];
	struct onvm_boxed_probe *room = onvm_probe_box_room(box);
	const uint64_t one = 1;

	if (room == NULL)
		return; /* as if it had been lost */
	room->received_ns = now_ns();
	room->length = length;
	room->peer = peer;
	memcpy(room->data, data, sizeof(room->data));
	onvm_probe_box_put(box);
	if (__atomic_load_n(&prober->is_eager, __ATOMIC_RELAXED) &&
	    write(prober->wake_fd, &one, sizeof(one)) < 0)
		return; /* it has been woken already */
}

/* ---- the clock ---- */

/** Time for which a peer must stay up before it counts as up again. */
static uint64_t
hold_ns(const struct onvm_probed *probed, uint64_t now)
{
	const uint32_t nb = probed->nb_downs <= DOWNS_FREE ? 0 : probed->nb_downs - DOWNS_FREE;

	if (nb == 0 || now > probed->went_down_ns + QUIET_NS)
		return 0;
	return HOLD_NS << (RTE_MIN(nb, HOLD_DOUBLINGS + 1u) - 1);
}

/** Whether the peer counts as down now. */
static bool
is_down(struct onvm_probed *probed, uint64_t now)
{
	if (probed->session.state != ONVM_BFD_UP) {
		probed->up_ns = 0;
		return probed->was_up || now > probed->added_ns + GRACE_NS;
	}
	if (probed->up_ns == 0)
		probed->up_ns = now;
	probed->was_up = true;
	return probed->is_cut || now < probed->up_ns + hold_ns(probed, now);
}

/** Note that a peer has gone down or up. */
static void
change(struct onvm_probed *probed, bool has_gone_down, uint64_t now)
{
	if (has_gone_down) {
		probed->nb_downs = now > probed->went_down_ns + QUIET_NS ? 1 : probed->nb_downs + 1;
		probed->went_down_ns = now;
	}
	__atomic_store_n(&probed->is_down, has_gone_down, __ATOMIC_RELEASE);
}

/** Whether datagrams wait for a worker. */
static bool
is_anything_waiting(const struct onvm_prober *prober)
{
	struct pollfd polled[ONVM_WORKERS_MAX];

	for (uint32_t i = 0; i < prober->nb_boxes; i++)
		polled[i] = (struct pollfd){.fd = prober->in_fds[i], .events = POLLIN};
	if (poll(polled, prober->nb_boxes, 0) <= 0)
		return false;
	for (uint32_t i = 0; i < prober->nb_boxes; i++)
		if (polled[i].revents & POLLIN)
			return true;
	return false;
}

/** Whether a peer has been silent for too long. */
static bool
is_silent(const struct onvm_prober *prober, const struct onvm_probed *probed, uint64_t now)
{
	const uint64_t end = probed->heard_ns + onvm_bfd_detect_us(&probed->session) * 1000;

	return now > end && (now > end + STALL_NS || !is_anything_waiting(prober));
}

/** Look at the clock for one peer; @return when to look again. */
static uint64_t
look(struct onvm_prober *prober, uint16_t peer, uint64_t now, bool *has_changed)
{
	struct onvm_probed *probed = &prober->probed[peer];
	struct onvm_bfd *session = &probed->session;
	uint64_t next, silent_ns;
	bool is_down_now;

	if (session->state > ONVM_BFD_DOWN && is_silent(prober, probed, now))
		onvm_bfd_go_down(session, ONVM_BFD_EXPIRED);
	is_down_now = is_down(probed, now);
	if (is_down_now != probed->is_down) {
		change(probed, is_down_now, now);
		*has_changed = true;
	}
	if (is_secured(prober) && probed->agreement.is_agreed && now > probed->agreed_ns + KEY_NS)
		onvm_agreement_begin(&probed->agreement);
	if (now + together_ns(prober) / 2 >= probed->due_ns) {
		const bool is_full = now >= probed->full_due_ns;

		session->interval_us = interval_us(prober);
		if (is_full)
			probed->full_due_ns = now + FULL_NS;
		send_to(prober, peer, is_full ? FULL_BYTES : ONVM_PROBE_BYTES, now);
		probed->due_ns = now + next_interval(prober, session);
	}
	next = RTE_MAX(probed->due_ns, now + together_ns(prober));
	if (session->state <= ONVM_BFD_DOWN)
		return next;
	silent_ns = probed->heard_ns + onvm_bfd_detect_us(session) * 1000 + 1;
	return RTE_MIN(next, RTE_MAX(silent_ns, now + TICK_NS));
}

/** Look at the clock for all; @return when to look again. */
static uint64_t
look_at_all(struct onvm_prober *prober, uint64_t now)
{
	const uint64_t one = 1;
	uint64_t next = now + IDLE_NS;
	bool has_changed = false, is_eager = false;
	uint32_t nb_left = prober->nb_peers;

	prober->seed = prober->seed * 6364136223846793005ull + 1442695040888963407ull;
	for (uint16_t peer = 1; nb_left > 0 && peer < ONVM_PEERS_MAX; peer++) {
		if (!prober->probed[peer].is_used)
			continue;
		nb_left--;
		next = RTE_MIN(next, look(prober, peer, now, &has_changed));
		is_eager |= prober->probed[peer].session.state != ONVM_BFD_UP ||
			    prober->probed[peer].agreement.is_pending;
	}
	__atomic_store_n(&prober->is_eager, is_eager, __ATOMIC_RELAXED);
	if (has_changed && write(prober->notice_fd, &one, sizeof(one)) < 0)
		return next; /* it has been told already */
	return next;
}

static void *
run(void *arg)
{
	struct onvm_prober *prober = arg;
	struct pollfd polled = {.fd = prober->wake_fd, .events = POLLIN};
	const struct sched_param urgent = {.sched_priority = 1};

	(void)pthread_setname_np(pthread_self(), "onvm-probes");
	/* Late answers look like a dead host. Where that is not permitted it must do without. */
	(void)pthread_setschedparam(pthread_self(), SCHED_RR, &urgent);
	while (!__atomic_load_n(&prober->must_stop, __ATOMIC_ACQUIRE)) {
		uint64_t next, now, woken;
		struct timespec pause;

		pthread_mutex_lock(&prober->lock);
		now = now_ns();
		receive_all(prober, now);
		next = look_at_all(prober, now);
		pthread_mutex_unlock(&prober->lock);
		now = now_ns();
		if (next <= now)
			continue;
		pause = (struct timespec){.tv_sec = (time_t)((next - now) / 1000000000ull),
					  .tv_nsec = (long)((next - now) % 1000000000ull)};
		if (ppoll(&polled, 1, &pause, NULL) > 0 &&
		    read(prober->wake_fd, &woken, sizeof(woken)) < 0)
			continue; /* another look does no harm */
	}
	return NULL;
}

/** Boxes for workers; those of an earlier tunnel are emptied. */
static int
prepare_boxes(struct onvm_prober *prober, uint32_t nb_workers)
{
	if (prober->boxes == NULL &&
	    posix_memalign((void **)&prober->boxes, _Alignof(struct onvm_probe_box),
			   nb_workers * sizeof(*prober->boxes)) != 0)
		return -ENOMEM;
	prober->nb_boxes = nb_workers;
	for (uint32_t i = 0; i < nb_workers; i++)
		prober->boxes[i].head = prober->boxes[i].tail = 0;
	for (uint32_t i = 0; i < ONVM_WORKERS_MAX; i++)
		prober->in_fds[i] = -1;
	return 0;
}

void
onvm_prober_listen(struct onvm_prober *prober, uint32_t worker, int fd)
{
	pthread_mutex_lock(&prober->lock);
	prober->in_fds[worker] = fd;
	pthread_mutex_unlock(&prober->lock);
}

int
onvm_prober_start(struct onvm_prober *prober, const struct onvm_prober_options *options)
{
	struct onvm_socket_options socket = {.ip_version = options->ip_version};
	struct onvm_probe_box *const boxes = prober->boxes;
	int rc;

	memset(prober, 0, sizeof(*prober));
	memcpy(socket.address, options->address, sizeof(socket.address));
	prober->boxes = boxes;
	prober->peers = options->peers;
	prober->vni = options->vni;
	prober->notice_fd = options->notice_fd;
	prober->seed = now_ns();
	rc = prepare_boxes(prober, options->nb_workers);
	if (rc != 0)
		return rc;
	prober->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	prober->fd = onvm_socket_send(&socket);
	if (prober->fd < 0 || prober->wake_fd < 0) {
		rc = prober->fd < 0 ? prober->fd : -EMFILE;
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
	if (prober->wake_fd >= 0)
		close(prober->wake_fd);
	return rc;
}

void
onvm_prober_stop(struct onvm_prober *prober)
{
	const uint64_t one = 1;

	if (!prober->is_running)
		return;
	__atomic_store_n(&prober->must_stop, 1, __ATOMIC_RELEASE);
	if (write(prober->wake_fd, &one, sizeof(one)) < 0)
		prober->is_running = false; /* full: it wakes all the same */
	pthread_join(prober->thread, NULL);
	for (uint16_t peer = 1; peer < ONVM_PEERS_MAX; peer++) {
		struct onvm_probed *probed = &prober->probed[peer];

		if (!probed->is_used)
			continue;
		probed->session.state = ONVM_BFD_ADMIN_DOWN;
		probed->session.diagnostic = ONVM_BFD_CLOSED;
		send_to(prober, peer, ONVM_PROBE_BYTES, now_ns());
	}
	close(prober->fd);
	close(prober->wake_fd);
	pthread_mutex_destroy(&prober->lock);
	prober->is_running = false;
}

void
onvm_prober_add(struct onvm_prober *prober, uint16_t peer)
{
	struct onvm_probed *probed = &prober->probed[peer];
	const uint64_t one = 1;
	uint32_t discriminator = 0;

	if (!prober->is_running)
		return;
	while (discriminator == 0)
		(void)getrandom(&discriminator, sizeof(discriminator), 0);
	pthread_mutex_lock(&prober->lock);
	*probed = (struct onvm_probed){
		.is_used = true,
		.added_ns = now_ns(),
		.agreement = {.secret = prober->peers->peers[peer].secret},
		.session = {.state = ONVM_BFD_DOWN,
			    .local = discriminator,
			    .interval_us = interval_us(prober),
			    .multiplier = ONVM_PROBE_MULTIPLIER},
	};
	if (is_secured(prober))
		onvm_agreement_begin(&probed->agreement);
	prober->nb_peers++;
	pthread_mutex_unlock(&prober->lock);
	if (write(prober->wake_fd, &one, sizeof(one)) < 0)
		return; /* it has been woken already */
}

void
onvm_prober_remove(struct onvm_prober *prober, uint16_t peer)
{
	if (!prober->is_running)
		return;
	pthread_mutex_lock(&prober->lock);
	if (prober->probed[peer].is_used)
		prober->nb_peers--;
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
