/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Changes by the control thread: NF hosts and chains; ports are in port_control.c, what is at peers
 * in remote_control.c.
 *
 * Each change is published, then made known by raising the epoch; what was there before is freed
 * when all workers have taken the change over.
 */

#include "control/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rte_rcu_qsbr.h>

/* ---- telling the workers ---- */

void
onvm_wake_workers(struct onvm_dataplane *dp)
{
	const uint64_t one = 1;

	for (uint32_t i = 0; i < dp->config.nb_workers; i++)
		if (write(dp->workers[i].event_fd, &one, sizeof(one)) < 0)
			continue; /* awake already */
}

void
onvm_publish(struct onvm_dataplane *dp)
{
	const uint32_t epoch = __atomic_add_fetch(&dp->epoch, 1, __ATOMIC_ACQ_REL);

	onvm_wake_workers(dp);
	for (uint32_t i = 0; i < dp->config.nb_workers; i++) {
		struct onvm_worker *worker = &dp->workers[i];

		while (__atomic_load_n(&worker->is_running, __ATOMIC_ACQUIRE) &&
		       !__atomic_load_n(&dp->must_stop, __ATOMIC_ACQUIRE) &&
		       (int32_t)(__atomic_load_n(&worker->seen, __ATOMIC_ACQUIRE) - epoch) < 0)
			usleep(20);
	}
}

int
onvm_swap_candidates(struct onvm_dataplane *dp, struct onvm_old_candidates *old)
{
	int rc = 0;

	for (uint16_t id = 1; id < ONVM_CHAINS_MAX; id++) {
		struct onvm_chain *chain = &dp->steering.chains[id];
		struct onvm_candidates *candidates;

		old->of[id] = NULL;
		if (!chain->is_used)
			continue;
		candidates = onvm_steering_candidates(&dp->steering, id);
		if (candidates == NULL) /* the old ones may name paths that will be retired */
			rc = onvm_fail(-ENOMEM, "chain %u: out of memory", id);
		old->of[id] = chain->candidates;
		__atomic_store_n(&chain->candidates, candidates, __ATOMIC_RELEASE);
	}
	return rc;
}

void
onvm_free_candidates(struct onvm_old_candidates *old)
{
	for (uint16_t id = 1; id < ONVM_CHAINS_MAX; id++)
		free(old->of[id]);
}

int
onvm_publish_candidates(struct onvm_dataplane *dp)
{
	struct onvm_old_candidates old;
	const int rc = onvm_swap_candidates(dp, &old);

	onvm_publish(dp);
	onvm_free_candidates(&old);
	return rc;
}

/* ---- NF hosts ---- */

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
onvm_host_free(struct onvm_dataplane *dp, uint32_t host)
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
onvm_dp_host_add(const uint16_t *services, uint32_t nb_stages, uint32_t nb_loaned, int node,
		 struct onvm_dp_attach_files *files)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_host *host = NULL;
	uint8_t *area;
	uint32_t slot;
	int fd;

	if (nb_stages == 0 || nb_stages > ONVM_STAGES_MAX || nb_loaned > dp->config.ring_length / 2)
		return onvm_fail(-EINVAL,
				 "%u stages, %u loaned buffers: expected 1 to %u and up to %u",
				 nb_stages, nb_loaned, ONVM_STAGES_MAX, dp->config.ring_length / 2);
	for (slot = 1; slot < ONVM_HOSTS_MAX; slot++)
		if (dp->steering.hosts[slot].state == ONVM_HOST_FREE)
			break;
	if (slot == ONVM_HOSTS_MAX)
		return onvm_fail(-ENOSPC, "all %u places for NF hosts are taken",
				 ONVM_HOSTS_MAX - 1);
	fd = create_area(dp, &area);
	if (fd < 0)
		return onvm_fail(fd, "attach area: %s", strerror(-fd));
	host = &dp->steering.hosts[slot];
	host->nb_stages = (uint8_t)nb_stages;
	memset(host->services, 0, sizeof(host->services));
	memcpy(host->services, services, nb_stages * sizeof(*services));
	host->spare_pps = 0;
	for (uint32_t w = 0; w < dp->config.nb_workers; w++) {
		dp->links[w][slot] = create_link(dp, w, slot, area, nb_loaned, node);
		if (dp->links[w][slot] == NULL) {
			if (w == 0)
				munmap(area, onvm_area_bytes(dp->config.ring_length,
							     dp->config.nb_workers));
			onvm_host_free(dp, slot);
			close(fd);
			return onvm_fail(-ENOMEM, "attach area: out of memory");
		}
	}
	*files = (struct onvm_dp_attach_files){
		.memory_fd = dp->memory.fd,
		.area_fd = fd,
		.nb_workers = dp->config.nb_workers,
		.buffer_stride = dp->memory.stride,
		.nb_buffers = dp->memory.nb_buffers,
		.memory_bytes = dp->memory.bytes,
		.area_bytes = onvm_area_bytes(dp->config.ring_length, dp->config.nb_workers),
	};
	for (uint32_t w = 0; w < dp->config.nb_workers; w++)
		files->event_fds[w] = dp->links[w][slot]->event_fd;
	__atomic_store_n(&host->state, ONVM_HOST_ATTACHED, __ATOMIC_RELEASE);
	onvm_publish(dp);
	return (int)slot;
}

static int
set_host_state(uint32_t slot, enum onvm_host_state from, enum onvm_host_state to)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot == 0 || slot >= ONVM_SLOTS_MAX || dp->steering.hosts[slot].state != from)
		return onvm_fail(-ENOENT, "NF host %u is not in the state for this", slot);
	__atomic_store_n(&dp->steering.hosts[slot].state, (uint8_t)to, __ATOMIC_RELEASE);
	return onvm_publish_candidates(dp);
}

int
onvm_dp_host_activate(uint32_t slot)
{
	const bool drains = slot < ONVM_SLOTS_MAX &&
			    onvm_dp.steering.hosts[slot].state == ONVM_HOST_DRAINING;

	return set_host_state(slot, drains ? ONVM_HOST_DRAINING : ONVM_HOST_ATTACHED,
			      ONVM_HOST_ACTIVE);
}

int
onvm_dp_host_drain(uint32_t slot)
{
	return set_host_state(slot, ONVM_HOST_ACTIVE, ONVM_HOST_DRAINING);
}

/** Forget the claims of @p slot, or add @p entry; publishes. */
static int
change_claims(struct onvm_dataplane *dp, uint16_t slot, const struct onvm_claim_entry *entry)
{
	struct onvm_claims *old = dp->steering.claims;
	const uint32_t nb_old = old == NULL ? 0 : old->nb;
	uint32_t nb_own = 0;
	struct onvm_claims *claims =
		calloc(1, sizeof(*claims) + (nb_old + 1) * sizeof(claims->entries[0]));

	if (claims == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < nb_old; i++)
		nb_own += old->entries[i].host == slot;
	if (entry != NULL && nb_own == ONVM_CLAIMS_MAX) {
		free(claims);
		return onvm_fail(-ENOSPC, "an NF host may make up to %u claims", ONVM_CLAIMS_MAX);
	}
	for (uint32_t i = 0; i < nb_old; i++)
		if (entry != NULL || old->entries[i].host != slot)
			claims->entries[claims->nb++] = old->entries[i];
	if (entry != NULL)
		claims->entries[claims->nb++] = *entry;
	__atomic_store_n(&dp->steering.claims, claims, __ATOMIC_RELEASE);
	onvm_publish(dp);
	free(old);
	return 0;
}

void
onvm_forget_claims(struct onvm_dataplane *dp, uint16_t slot)
{
	if (dp->steering.claims != NULL)
		change_claims(dp, slot, NULL);
}

int
onvm_dp_host_claim(uint32_t slot, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
		   uint32_t first_port, uint32_t end_port)
{
	struct onvm_claim_entry entry = {.host = (uint16_t)slot};

	if (slot == 0 || slot >= ONVM_SLOTS_MAX || (ip_version != 4 && ip_version != 6) ||
	    first_port >= end_port || end_port > 65536)
		return onvm_fail(-EINVAL, "claim of NF host %u: ports [%u, %u) of IPv%u", slot,
				 first_port, end_port, ip_version);
	memcpy(entry.claim.address, address, ip_version == 4 ? 4 : 16);
	entry.claim.ip_version = ip_version;
	entry.claim.protocol = protocol;
	entry.claim.first_port = first_port;
	entry.claim.end_port = end_port;
	return change_claims(&onvm_dp, (uint16_t)slot, &entry);
}

int
onvm_dp_host_leave(uint32_t slot, uint32_t successor)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_host *host = &dp->steering.hosts[slot];

	if (slot == 0 || slot >= ONVM_HOSTS_MAX || successor >= ONVM_SLOTS_MAX ||
	    (host->state != ONVM_HOST_ACTIVE && host->state != ONVM_HOST_DRAINING))
		return onvm_fail(-ENOENT, "NF host %u does not serve", slot);
	__atomic_store_n(&host->state, ONVM_HOST_LEAVING, __ATOMIC_RELEASE);
	onvm_publish_candidates(dp);
	onvm_steering_retire_host(&dp->steering, (uint16_t)slot, (uint16_t)successor);
	/* From here on no worker admits a packet to a path of the host. */
	onvm_publish(dp);
	return dp->steering.claims == NULL ? 0 : change_claims(dp, (uint16_t)slot, NULL);
}

int
onvm_dp_host_remove(uint32_t slot, struct onvm_dp_host_stats *last)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_old_candidates old;
	struct onvm_host *host;

	if (slot == 0 || slot >= ONVM_HOSTS_MAX || dp->steering.hosts[slot].state == ONVM_HOST_FREE)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	host = &dp->steering.hosts[slot];
	/* Its flows have successors before the workers lose it: they never find nobody. Workers
	 * may take over at any time, for the housekeeper publishes, too: dead comes last. */
	__atomic_store_n(&host->state, ONVM_HOST_LEAVING, __ATOMIC_RELEASE);
	onvm_swap_candidates(dp, &old);
	onvm_steering_retire_host(&dp->steering, (uint16_t)slot, 0);
	__atomic_store_n(&host->state, ONVM_HOST_DEAD, __ATOMIC_RELEASE);
	onvm_publish(dp);
	onvm_free_candidates(&old);
	/* The workers have swept their links to it; before, one may have made another path. */
	onvm_steering_retire_host(&dp->steering, (uint16_t)slot, 0);
	onvm_forget_claims(dp, (uint16_t)slot);
	onvm_host_set_number(dp, slot, 0);
	if (last != NULL)
		onvm_dp_read_host(slot, last);
	onvm_host_free(dp, slot);
	host->generation++;
	__atomic_store_n(&host->state, ONVM_HOST_FREE, __ATOMIC_RELEASE);
	return 0;
}

int
onvm_dp_host_attention(uint32_t slot)
{
	struct onvm_link *link = slot < ONVM_HOSTS_MAX ? onvm_dp.links[0][slot] : NULL;

	if (link == NULL)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	__atomic_add_fetch(&link->control->attention, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&link->control->sleeping, 0, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &link->control->sleeping, FUTEX_WAKE, 1, NULL, NULL, 0);
	return 0;
}

int
onvm_dp_host_spare_pps(uint32_t slot, uint32_t spare_pps)
{
	if (slot == 0 || slot >= ONVM_SLOTS_MAX)
		return onvm_fail(-ENOENT, "there is no NF host %u", slot);
	__atomic_store_n(&onvm_dp.steering.hosts[slot].spare_pps, spare_pps, __ATOMIC_RELAXED);
	return 0;
}

/* ---- chains ---- */

static void
bind_port(struct onvm_dataplane *dp, uint16_t port, uint32_t binding)
{
	if (port < ONVM_PORTS_MAX)
		__atomic_store_n(&dp->ports[port].binding, binding, __ATOMIC_RELEASE);
}

/** Take the ports of chain @p id away from it. */
static void
unbind_ports(struct onvm_dataplane *dp, uint16_t id)
{
	for (uint32_t port = 0; port < ONVM_PORTS_MAX; port++)
		if ((uint16_t)dp->ports[port].binding == id)
			bind_port(dp, (uint16_t)port, 0);
}

/** Whether the ports of @p chain stay as they are. */
static bool
has_same_ports(const struct onvm_chain *chain, const struct onvm_dp_chain *wanted)
{
	return chain->is_used && chain->near_port == wanted->near_port &&
	       chain->far_port == wanted->far_port &&
	       chain->is_bidirectional == (wanted->is_bidirectional != 0) &&
	       chain->by_rules == (wanted->by_rules != 0) && chain->number == wanted->number;
}

/** Whether @p port can be the end of a chain: one of this host, or of a peer. */
static bool
is_port(const struct onvm_dataplane *dp, uint16_t port)
{
	const uint16_t peer = port & (ONVM_PORT_REMOTE - 1);

	return port < ONVM_PORTS_MAX || ((port & ONVM_PORT_REMOTE) != 0 && peer < ONVM_PEERS_MAX &&
					 dp->peers.peers[peer].is_used);
}

int
onvm_dp_chain_set(uint32_t id, const struct onvm_dp_chain *wanted)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_chain *chain;
	int rc;

	if (id == 0 || id >= ONVM_CHAINS_MAX || wanted->nb_services > ONVM_CHAIN_LENGTH_MAX ||
	    !is_port(dp, wanted->near_port) || !is_port(dp, wanted->far_port) ||
	    (wanted->number == 0 && (wanted->near_port | wanted->far_port) >= ONVM_PORTS_MAX))
		return onvm_fail(-EINVAL, "chain %u: %u services, ports %u and %u", id,
				 wanted->nb_services, wanted->near_port, wanted->far_port);
	chain = &dp->steering.chains[id];
	/* Of a chain, workers read the ports; its services they know from the candidates. */
	if (chain->is_used && !has_same_ports(chain, wanted)) {
		unbind_ports(dp, (uint16_t)id);
		onvm_publish(dp);
	}
	chain->is_bidirectional = wanted->is_bidirectional != 0;
	chain->by_rules = wanted->by_rules != 0;
	__atomic_store_n(&chain->number, wanted->number, __ATOMIC_RELEASE);
	__atomic_store_n(&chain->waits, wanted->waits != 0, __ATOMIC_RELAXED);
	__atomic_store_n(&chain->track_flows, wanted->track_flows != 0, __ATOMIC_RELAXED);
	chain->nb_services = (uint8_t)wanted->nb_services;
	memcpy(chain->services, wanted->services, sizeof(chain->services));
	chain->near_port = wanted->near_port;
	chain->far_port = wanted->far_port;
	__atomic_store_n(&chain->is_used, true, __ATOMIC_RELEASE);
	rc = onvm_publish_candidates(dp);
	onvm_steering_retire_chain(&dp->steering, (uint16_t)id);
	if (chain->by_rules) {
		/* The far port's new flows take it where no other chain has that port. */
		if (chain->is_bidirectional && chain->far_port < ONVM_PORTS_MAX &&
		    dp->ports[chain->far_port].binding == 0)
			bind_port(dp, chain->far_port, id | ONVM_BINDING_FAR);
		return rc;
	}
	bind_port(dp, chain->near_port, id);
	if (chain->is_bidirectional && chain->far_port != chain->near_port)
		bind_port(dp, chain->far_port, id | ONVM_BINDING_FAR);
	return rc;
}

int
onvm_dp_chain_remove(uint32_t id)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_candidates *old;
	struct onvm_chain *chain;

	if (id == 0 || id >= ONVM_CHAINS_MAX || !dp->steering.chains[id].is_used)
		return onvm_fail(-ENOENT, "there is no chain %u", id);
	chain = &dp->steering.chains[id];
	unbind_ports(dp, (uint16_t)id);
	old = chain->candidates;
	__atomic_store_n(&chain->candidates, NULL, __ATOMIC_RELEASE);
	chain->is_used = false;
	onvm_publish(dp);
	onvm_steering_retire_chain(&dp->steering, (uint16_t)id);
	free(old);
	return 0;
}
