/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Backends: whether they are up, what they carry, and whether they answer clients.
 */

#include "lb.h"

#include <errno.h>
#include <string.h>

/* RFC 6298: a SYN is repeated after a second. One that follows at once may be forged. */
#define RETRY_NS 500000000ull

/* A backend by what it is: key of a table that only lives during an update. */
struct identity {
	uint8_t vip[ONVM_ADDRESS_BYTES], address[ONVM_ADDRESS_BYTES];
	uint8_t vip_port[2], port[2];
	uint8_t protocol;
	uint8_t pad[11];
};
static_assert(sizeof(struct identity) == 48, "looked up in place");

static void
identity_fill(struct identity *identity, const struct lb_vip *vip, const struct lb_backend *backend)
{
	memset(identity, 0, sizeof(*identity));
	memcpy(identity->vip, vip->address, sizeof(identity->vip));
	memcpy(identity->address, backend->address, sizeof(identity->address));
	memcpy(identity->vip_port, vip->port, sizeof(identity->vip_port));
	memcpy(identity->port, backend->port, sizeof(identity->port));
	identity->protocol = vip->protocol;
}

static void
identities_add(struct onvm_flow_table *known, const struct lb_config *config,
	       const struct lb_vip *vip)
{
	for (uint32_t i = 0; i < vip->nb_backends; i++) {
		const uint32_t index = vip->first_backend + i;
		struct identity identity;
		int32_t slot;

		identity_fill(&identity, vip, &config->backends[index]);
		slot = onvm_flow_table_add(known, &identity, 0);
		if (slot >= 0)
			memcpy(onvm_flow_value(known, slot), &index, sizeof(index));
	}
}

int
lb_usages_inherit(struct lb *lb, const struct lb *before, uint32_t *moved)
{
	struct onvm_flow_table *const known = onvm_flow_table_create(before->config.nb_backends + 1,
								     sizeof(struct identity),
								     sizeof(uint32_t));

	if (known == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < before->config.nb_vips; i++)
		identities_add(known, &before->config, &before->config.vips[i]);
	for (uint32_t i = 0; i < before->config.nb_backends; i++)
		moved[i] = LB_NO_BACKEND;
	lb->nb_failing = 0;
	for (uint32_t i = 0; i < lb->config.nb_vips; i++) {
		const struct lb_vip *const vip = &lb->config.vips[i];

		for (uint32_t j = 0; j < vip->nb_backends; j++) {
			const uint32_t index = vip->first_backend + j;
			struct identity identity;
			uint32_t former;
			int32_t slot;

			identity_fill(&identity, vip, &lb->config.backends[index]);
			slot = onvm_flow_table_lookup(known, &identity);
			if (slot < 0)
				continue;
			memcpy(&former, onvm_flow_value(known, slot), sizeof(former));
			moved[former] = index;
			lb->usages[index] = before->usages[former];
			lb->nb_failing += lb->usages[index].is_failing;
		}
	}
	onvm_flow_table_free(known);
	return 0;
}

void
lb_health_set(struct lb *lb, const uint32_t *const *tables, const uint8_t *healths)
{
	struct lb_vip *const vips = (struct lb_vip *)(uintptr_t)lb->config.vips;

	for (uint32_t i = 0; i < lb->config.nb_vips; i++)
		vips[i].table = tables[i];
	for (uint32_t i = 0; i < lb->config.nb_backends; i++)
		lb->usages[i].health = healths[i];
}

uint32_t
lb_failing_take(struct lb *lb, uint32_t *indices, uint32_t nb)
{
	uint32_t nb_taken = 0;

	for (uint32_t i = 0; lb->nb_failing != 0 && nb_taken < nb && i < lb->config.nb_backends;
	     i++) {
		if (!lb->usages[i].is_failing)
			continue;
		lb->usages[i].is_failing = 0;
		lb->nb_failing--;
		indices[nb_taken++] = i;
	}
	return nb_taken;
}

static void
failure_count(struct lb *lb, const struct lb_key *key, const struct lb_entry *first,
	      uint64_t now_ns)
{
	const uint8_t *const port = key->dst_port;
	const struct lb_vip *const vip =
		lb_vip_find(lb, key->ip_version, key->dst, key->protocol, port);
	struct lb_usage *const usage = &lb->usages[first->backend];

	if (vip == NULL || vip->failures == 0)
		return;
	if (usage->nb_failures != 0 && now_ns - usage->failing_ns >= vip->window_ns)
		usage->nb_failures = 0;
	if (usage->nb_failures == 0)
		usage->failing_ns = now_ns;
	if (++usage->nb_failures < vip->failures)
		return;
	usage->nb_failures = 0;
	lb->nb_failing += !usage->is_failing;
	usage->is_failing = 1;
}

/*
 * A backend fails a client that opens a connection when it resets it before it has accepted, or
 * when the client has to repeat its SYN. Its SYN shows that it works.
 */
void
lb_failures_note(struct lb *lb, const struct lb_key *key, const struct lb_entry *used,
		 uint8_t tcp_flags, uint64_t now_ns)
{
	const uint8_t kind = tcp_flags & (ONVM_TCP_SYN | ONVM_TCP_ACK | ONVM_TCP_RST);
	const struct lb_entry *const first =
		used->is_reply ? onvm_flow_value(lb->connections, used->partner) : used;

	if (used->backend == LB_NO_BACKEND || (first->state & LB_SEEN << 1) != 0 ||
	    (first->state & LB_HANDSHAKE) == 0)
		return;
	if (used->is_reply && kind == (ONVM_TCP_SYN | ONVM_TCP_ACK))
		lb->usages[used->backend].nb_failures = 0;
	else if (used->is_reply && (kind & ONVM_TCP_RST) != 0)
		failure_count(lb, onvm_flow_table_key(lb->connections, used->partner), first,
			      now_ns);
	else if (!used->is_reply && kind == ONVM_TCP_SYN && (first->state & LB_SEEN) != 0 &&
		 now_ns - first->link.used_ns >= RETRY_NS)
		failure_count(lb, key, first, now_ns);
}
