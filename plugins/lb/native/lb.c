/* SPDX-License-Identifier: Apache-2.0 */
#include "lb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VIP_KEYS_PER_VIP 2 /* itself, and its address for fragments */

static bool
vip_is_valid(const struct lb_config *config, const struct lb_vip *vip)
{
	if (vip->nb_backends == 0)
		return true;
	if (vip->first_backend > config->nb_backends || vip->table_size == 0 ||
	    vip->nb_backends > config->nb_backends - vip->first_backend)
		return false;
	for (uint32_t i = 0; i < vip->table_size; i++)
		if (vip->table[i] >= vip->nb_backends)
			return false;
	return true;
}

static void
vip_key_fill(struct lb_vip_key *key, const struct lb_vip *vip)
{
	memset(key, 0, sizeof(*key));
	memcpy(key->address, vip->address, sizeof(key->address));
	memcpy(key->port, vip->port, sizeof(key->port));
	key->protocol = vip->protocol;
	key->ip_version = vip->ip_version;
}

static int
vip_add(struct onvm_flow_table *table, const struct lb_vip *vip, uint32_t index)
{
	struct lb_vip_key key;
	int32_t slot;

	vip_key_fill(&key, vip);
	slot = onvm_flow_table_add(table, &key, 0);
	if (slot < 0)
		return slot;
	memcpy(onvm_flow_table_value(table, slot), &index, sizeof(index));
	memset(key.port, 0, sizeof(key.port));
	key.protocol = 0;
	slot = onvm_flow_table_add(table, &key, 0);
	return slot < 0 ? slot : 0;
}

static void *
copy(const void *array, size_t nb, size_t size)
{
	void *made = calloc(nb + 1, size);

	if (made != NULL && nb != 0)
		memcpy(made, array, nb * size);
	return made;
}

int
lb_update(struct lb *lb, const struct lb_config *config)
{
	struct lb_vip *vips = NULL;
	struct lb_backend *backends = NULL;
	struct onvm_flow_table *table = NULL;
	int rc = 0;

	for (uint32_t i = 0; i < config->nb_vips; i++)
		if (!vip_is_valid(config, &config->vips[i]))
			return -EINVAL;
	vips = copy(config->vips, config->nb_vips, sizeof(*vips));
	backends = copy(config->backends, config->nb_backends, sizeof(*backends));
	table = onvm_flow_table_create((config->nb_vips + 1) * VIP_KEYS_PER_VIP,
				       sizeof(struct lb_vip_key), sizeof(uint32_t));
	if (vips == NULL || backends == NULL || table == NULL)
		rc = -ENOMEM;
	for (uint32_t i = 0; rc == 0 && i < config->nb_vips; i++)
		rc = vip_add(table, &vips[i], i);
	if (rc != 0) {
		free(vips);
		free(backends);
		onvm_flow_table_free(table);
		return rc;
	}
	free((void *)(uintptr_t)lb->config.vips);
	free((void *)(uintptr_t)lb->config.backends);
	onvm_flow_table_free(lb->vips);
	lb->vips = table;
	lb->config = *config;
	lb->config.vips = vips;
	lb->config.backends = backends;
	return 0;
}

struct lb *
lb_create(const struct lb_config *config)
{
	struct lb *lb = calloc(1, sizeof(*lb));
	int rc;

	if (lb == NULL)
		return NULL;
	lb->counters = lb->unused_counters;
	rc = lb_update(lb, config);
	if (rc == 0) {
		lb->connections = onvm_flow_table_create(2 * config->max_connections,
							 sizeof(struct lb_key),
							 sizeof(struct lb_entry));
		if (lb->connections == NULL)
			rc = -errno;
	}
	if (rc != 0) {
		lb_free(lb);
		errno = -rc;
		return NULL;
	}
	return lb;
}

void
lb_free(struct lb *lb)
{
	if (lb == NULL)
		return;
	free((void *)(uintptr_t)lb->config.vips);
	free((void *)(uintptr_t)lb->config.backends);
	onvm_flow_table_free(lb->vips);
	onvm_flow_table_free(lb->connections);
	free(lb);
}
