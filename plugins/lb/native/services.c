/* SPDX-License-Identifier: Apache-2.0 */

/*
 * VIPs and servers by their addresses. Both tables are made as a whole and never change.
 */

#include "lb.h"

#include <errno.h>
#include <string.h>

#define VIP_KEYS_PER_VIP 2 /* itself, and its address alone */

/* A backend of a VIP: key of a table that only lives while connections are looked through. */
struct member {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t port[2];
	uint8_t pad[10];
	uint32_t vip;
};
static_assert(sizeof(struct member) == 32, "looked up in place");

static bool
vip_is_valid(const struct lb_config *config, const struct lb_vip *vip)
{
	if (vip->nb_backends == 0)
		return vip->table == NULL;
	if (vip->first_backend > config->nb_backends ||
	    vip->nb_backends > config->nb_backends - vip->first_backend ||
	    (vip->table != NULL && vip->table_size == 0))
		return false;
	for (uint32_t i = 0; vip->table != NULL && i < vip->table_size; i++)
		if (vip->table[i] >= vip->nb_backends)
			return false;
	return true;
}

int
lb_services_check(const struct lb_config *config)
{
	for (uint32_t i = 0; i < config->nb_vips; i++)
		if (!vip_is_valid(config, &config->vips[i]))
			return -EINVAL;
	return 0;
}

static void
end_fill(struct lb_vip_key *key, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
	 const uint8_t *port)
{
	memset(key, 0, sizeof(*key));
	memcpy(key->address, address, onvm_address_bytes(ip_version));
	key->ip_version = ip_version;
	key->protocol = protocol;
	if (protocol != 0)
		memcpy(key->port, port, sizeof(key->port));
}

static int
vip_add(struct lb *lb, uint32_t index)
{
	const struct lb_vip *const vip = &lb->config.vips[index];
	struct lb_vip_key key;
	int32_t slot;

	end_fill(&key, vip->ip_version, vip->address, vip->protocol, vip->port);
	slot = onvm_flow_table_add(lb->vips, &key, 0);
	if (slot < 0)
		return slot;
	memcpy(onvm_flow_value(lb->vips, slot), &index, sizeof(index));
	end_fill(&key, vip->ip_version, vip->address, 0, NULL);
	slot = onvm_flow_table_add(lb->vips, &key, 0);
	return slot < 0 ? slot : 0;
}

/* Servers of a VIP with a port of its own: what comes from such an end is a reply. */
static int
servers_add(struct lb *lb, uint32_t index)
{
	const struct lb_vip *const vip = &lb->config.vips[index];

	if (onvm_load_be16(vip->port) == 0 || vip->forward != LB_NAT)
		return 0;
	for (uint32_t i = 0; i < vip->nb_backends; i++) {
		const struct lb_backend *const backend =
			&lb->config.backends[vip->first_backend + i];
		const bool has_port = onvm_load_be16(backend->port) != 0;
		struct lb_vip_key key;
		uint32_t value = index;
		int32_t slot;

		end_fill(&key, vip->ip_version, backend->address, vip->protocol,
			 has_port ? backend->port : vip->port);
		slot = onvm_flow_table_lookup(lb->servers, &key);
		if (slot < 0)
			slot = onvm_flow_table_add(lb->servers, &key, 0);
		else if (memcmp(onvm_flow_value(lb->servers, slot), &index, sizeof(index)) != 0)
			value = LB_AMBIGUOUS;
		if (slot < 0)
			return slot;
		memcpy(onvm_flow_value(lb->servers, slot), &value, sizeof(value));
	}
	return 0;
}

int
lb_services_fill(struct lb *lb)
{
	const struct lb_config *const config = &lb->config;
	int rc = 0;

	lb->vips = onvm_flow_table_create((config->nb_vips + 1) * VIP_KEYS_PER_VIP,
					  sizeof(struct lb_vip_key), sizeof(uint32_t));
	if (lb->vips == NULL)
		return -errno;
	lb->servers = onvm_flow_table_create(config->nb_backends + 1, sizeof(struct lb_vip_key),
					     sizeof(uint32_t));
	if (lb->servers == NULL)
		return -errno;
	for (uint32_t i = 0; rc == 0 && i < config->nb_vips; i++)
		rc = vip_add(lb, i);
	for (uint32_t i = 0; rc == 0 && i < config->nb_vips; i++)
		rc = servers_add(lb, i);
	return rc;
}

const struct lb_vip *
lb_vip_find(const struct lb *lb, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
	    const uint8_t *port)
{
	struct lb_vip_key key;
	int32_t slot;
	uint32_t index;

	end_fill(&key, ip_version, address, protocol, port);
	slot = onvm_flow_table_lookup(lb->vips, &key);
	if (slot < 0) {
		memset(key.port, 0, sizeof(key.port));
		slot = onvm_flow_table_lookup(lb->vips, &key);
	}
	if (slot < 0)
		return NULL;
	memcpy(&index, onvm_flow_value(lb->vips, slot), sizeof(index));
	return &lb->config.vips[index];
}

bool
lb_is_vip(const struct lb *lb, uint8_t ip_version, const uint8_t *address)
{
	struct lb_vip_key key;

	end_fill(&key, ip_version, address, 0, NULL);
	return onvm_flow_table_lookup(lb->vips, &key) >= 0;
}

const struct lb_vip *
lb_vip_of_server(const struct lb *lb, const struct lb_key *key)
{
	struct lb_vip_key server;
	uint32_t index;
	int32_t slot;

	end_fill(&server, key->ip_version, key->src, key->protocol, key->src_port);
	slot = onvm_flow_table_lookup(lb->servers, &server);
	if (slot < 0)
		return NULL;
	memcpy(&index, onvm_flow_value(lb->servers, slot), sizeof(index));
	return index == LB_AMBIGUOUS ? NULL : &lb->config.vips[index];
}

bool
lb_is_for_server(const struct lb *lb, const struct lb_key *key)
{
	struct lb_vip_key server;

	end_fill(&server, key->ip_version, key->dst, key->protocol, key->dst_port);
	return onvm_flow_table_lookup(lb->servers, &server) >= 0;
}

static struct onvm_flow_table *
members_make(const struct lb *lb)
{
	const struct lb_config *const config = &lb->config;
	struct onvm_flow_table *const members = onvm_flow_table_create(config->nb_backends + 1,
								       sizeof(struct member),
								       sizeof(uint32_t));

	for (uint32_t i = 0; members != NULL && i < config->nb_vips; i++) {
		const struct lb_vip *const vip = &config->vips[i];

		for (uint32_t j = 0; j < vip->nb_backends; j++) {
			const struct lb_backend *const backend =
				&config->backends[vip->first_backend + j];
			struct member member = {.vip = i};
			const uint32_t index = vip->first_backend + j;
			int32_t slot;

			memcpy(member.address, backend->address, sizeof(member.address));
			memcpy(member.port, backend->port, sizeof(member.port));
			slot = onvm_flow_table_add(members, &member, 0);
			memcpy(onvm_flow_value(members, slot), &index, sizeof(index));
		}
	}
	return members;
}

/* Index of the backend of a connection, or LB_NO_BACKEND. */
static uint32_t
backend_of(struct lb *lb, struct onvm_flow_table *members, int32_t slot)
{
	const struct lb_key *const key = onvm_flow_table_key(lb->connections, slot);
	const struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);
	const struct lb_vip *const vip =
		lb_vip_find(lb, key->ip_version, key->dst, key->protocol, key->dst_port);
	struct member member = {0};
	uint32_t index = LB_NO_BACKEND;
	int32_t found;

	if (vip == NULL || vip->forward != entry->forward)
		return LB_NO_BACKEND;
	member.vip = (uint32_t)(vip - lb->config.vips);
	memcpy(member.address, entry->address, sizeof(member.address));
	memcpy(member.port, entry->port, sizeof(member.port));
	found = onvm_flow_table_lookup(members, &member);
	if (found < 0 && memcmp(entry->port, key->dst_port, sizeof(entry->port)) == 0) {
		memset(member.port, 0, sizeof(member.port));
		found = onvm_flow_table_lookup(members, &member);
	}
	if (found >= 0)
		memcpy(&index, onvm_flow_value(members, found), sizeof(index));
	return index;
}

int
lb_backends_assign(struct lb *lb, const uint32_t *moved)
{
	struct onvm_flow_table *const members = members_make(lb);
	int32_t slot = onvm_flow_table_next(lb->connections, 0);

	if (members == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < lb->config.nb_backends; i++)
		lb->usages[i].current = 0;
	for (; slot >= 0; slot = onvm_flow_table_next(lb->connections, slot + 1)) {
		struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);
		const struct lb_key *const key = onvm_flow_table_key(lb->connections, slot);

		struct lb_entry *reply;
		uint32_t index;

		if (entry->is_reply)
			continue;
		reply = onvm_flow_value(lb->connections, entry->partner);
		index = moved == NULL || entry->backend == LB_NO_BACKEND ? LB_NO_BACKEND :
									   moved[entry->backend];
		if (index == LB_NO_BACKEND)
			index = backend_of(lb, members, slot);
		entry->backend = reply->backend = index;
		entry->is_orphan = entry->backend == LB_NO_BACKEND;
		if (!entry->is_orphan)
			lb->usages[entry->backend].current++;
		if (entry->is_orphan && key->protocol == ONVM_PROTO_UDP)
			lb_connection_close(lb, slot);
	}
	onvm_flow_table_free(members);
	return 0;
}
