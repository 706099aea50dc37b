/* SPDX-License-Identifier: Apache-2.0 */

/*
 * IPv6 hosts and their stand-ins, addresses in 0.0.0.0/8. A stand-in lives as long as its host has
 * mappings, or packets in the chunk in work: either holds it.
 */

#include "nat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS_MAX ((1u << 24) - 2) /* 0.0.0.0 stands for none of them */
#define IPV6_IN_IPV4 41

/* A host: its stand-in is 0.0.0.1 and its slot. */
struct nat_host_key {
	uint8_t address[16];
	uint8_t vlan[3];
	uint8_t pad[5];
};

int
nat_host_create(struct nat *nat, uint32_t nb_hosts)
{
	nat->hosts = onvm_flow_table_create_plain(nb_hosts < HOSTS_MAX ? nb_hosts : HOSTS_MAX,
						  sizeof(struct nat_host_key), sizeof(uint32_t));
	return nat->hosts == NULL ? -errno : 0;
}

static int32_t
slot_of(const uint8_t *stand_in)
{
	return (int32_t)onvm_load_be32(stand_in) - 1;
}

static uint32_t *
nb_holds_of(struct nat *nat, const uint8_t *stand_in)
{
	return onvm_flow_value(nat->hosts, slot_of(stand_in));
}

bool
nat_host_find(struct nat *nat, const uint8_t *address, const uint8_t *vlan, bool makes,
	      uint8_t *stand_in)
{
	struct nat_host_key key = {0};
	int32_t slot;

	memcpy(key.address, address, sizeof(key.address));
	memcpy(key.vlan, vlan, sizeof(key.vlan));
	slot = onvm_flow_table_lookup(nat->hosts, &key);
	if (slot >= 0) {
		onvm_store_be32(stand_in, (uint32_t)slot + 1);
		return true;
	}
	slot = makes ? onvm_flow_table_add(nat->hosts, &key, 0) : -1;
	if (slot < 0)
		return false;
	onvm_store_be32(stand_in, (uint32_t)slot + 1);
	*nb_holds_of(nat, stand_in) = 0;
	return true;
}

const uint8_t *
nat_host_of(const struct nat *nat, const uint8_t *stand_in)
{
	const struct nat_host_key *const key = onvm_flow_table_key(nat->hosts, slot_of(stand_in));

	return key->address;
}

void
nat_host_hold(struct nat *nat, const uint8_t *stand_in)
{
	++*nb_holds_of(nat, stand_in);
}

void
nat_host_release(struct nat *nat, const uint8_t *stand_in)
{
	if (--*nb_holds_of(nat, stand_in) == 0)
		onvm_flow_table_delete_slot(nat->hosts, slot_of(stand_in));
}

static struct nat_saved_host *
saved_host_of(struct nat_saved *saved)
{
	return (struct nat_saved_host *)(void *)saved;
}

uint32_t
nat_host_save(struct nat *nat, struct nat_saved *saved, uint32_t nb)
{
	int32_t slot = nat->hosts == NULL ? -1 : onvm_flow_table_next(nat->hosts, 0);
	uint32_t nb_saved = 0;

	for (; slot >= 0 && nb_saved < nb; slot = onvm_flow_table_next(nat->hosts, slot + 1)) {
		const struct nat_host_key *const key = onvm_flow_table_key(nat->hosts, slot);
		struct nat_saved_host *const host = saved_host_of(&saved[nb_saved++]);

		memset(host, 0, sizeof(*host));
		onvm_store_be32(host->stand_in, (uint32_t)slot + 1);
		memcpy(host->first_half, key->address, 8);
		memcpy(host->second_half, key->address + 8, 8);
		host->protocol = IPV6_IN_IPV4;
		memcpy(host->vlan, key->vlan, sizeof(host->vlan));
	}
	return nb_saved;
}

int
nat_host_restore(struct nat *nat, struct nat_saved *saved, uint32_t nb_hosts, uint32_t nb)
{
	uint32_t *here; /* by the number of a stand-in there; 0: none */
	int rc = 0;

	if (nb_hosts != 0 && nat->hosts == NULL)
		return -EINVAL;
	here = calloc(HOSTS_MAX + 1, sizeof(*here)); /* mostly untouched */
	if (here == NULL) {
		for (uint32_t i = 0; i < nb_hosts; i++)
			memset(saved[i].key.inside, 0, sizeof(saved[i].key.inside));
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < nb_hosts; i++) {
		struct nat_saved_host *const host = saved_host_of(&saved[i]);
		const uint32_t number = onvm_load_be32(host->stand_in);
		uint8_t address[16];

		memcpy(address, host->first_half, 8);
		memcpy(address + 8, host->second_half, 8);
		memset(host->stand_in, 0, sizeof(host->stand_in));
		if (number == 0 || number > HOSTS_MAX)
			rc = -EINVAL;
		else if (!nat_host_find(nat, address, host->vlan, true, host->stand_in))
			rc = -ENOSPC;
		else
			nat_host_hold(nat, host->stand_in);
		if (onvm_load_be32(host->stand_in) != 0)
			here[number] = onvm_load_be32(host->stand_in);
	}
	for (uint32_t i = nb_hosts; i < nb && rc == 0; i++) {
		uint8_t *const inside = saved[i].key.inside;
		const uint32_t number = onvm_load_be32(inside);

		if (!nat_is_stand_in(inside))
			continue;
		if (number > HOSTS_MAX || here[number] == 0)
			rc = -EINVAL;
		else
			onvm_store_be32(inside, here[number]);
	}
	free(here);
	return rc;
}

void
nat_host_restored(struct nat *nat, struct nat_saved *saved, uint32_t nb_hosts)
{
	for (uint32_t i = 0; i < nb_hosts; i++) {
		const struct nat_saved_host *const host = saved_host_of(&saved[i]);

		if (onvm_load_be32(host->stand_in) != 0 && nat->hosts != NULL)
			nat_host_release(nat, host->stand_in);
	}
}
