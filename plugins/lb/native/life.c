/* SPDX-License-Identifier: Apache-2.0 */
#include "lb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void *
copy(const void *array, size_t nb, size_t size)
{
	void *made = calloc(nb + 1, size);

	if (made != NULL && nb != 0)
		memcpy(made, array, nb * size);
	return made;
}

static void
services_free(struct lb *lb)
{
	free((void *)(uintptr_t)lb->config.vips);
	free((void *)(uintptr_t)lb->config.backends);
	onvm_flow_table_free(lb->vips);
	onvm_flow_table_free(lb->servers);
	free(lb->usages);
}

static void
services_take(struct lb *lb, const struct lb *from)
{
	lb->config = from->config;
	lb->vips = from->vips;
	lb->servers = from->servers;
	lb->usages = from->usages;
	lb->nb_failing = from->nb_failing;
}

static bool
vips_are_same(const struct lb *a, const struct lb *b)
{
	if (a->config.nb_vips != b->config.nb_vips)
		return false;
	for (uint32_t i = 0; i < a->config.nb_vips; i++) {
		const struct lb_vip *const one = &a->config.vips[i];
		const struct lb_vip *const other = &b->config.vips[i];

		if (memcmp(one->address, other->address, sizeof(one->address)) != 0 ||
		    memcmp(one->port, other->port, sizeof(one->port)) != 0 ||
		    one->ip_version != other->ip_version || one->protocol != other->protocol ||
		    one->forward != other->forward)
			return false;
	}
	return true;
}

int
lb_update(struct lb *lb, const struct lb_config *config)
{
	struct lb next = *lb, before = *lb;
	uint32_t *moved = NULL;
	int rc = lb_services_check(config);

	if (rc != 0)
		return rc;
	next.config = *config;
	next.config.vips = copy(config->vips, config->nb_vips, sizeof(*config->vips));
	next.config.backends =
		copy(config->backends, config->nb_backends, sizeof(*config->backends));
	next.vips = next.servers = NULL;
	next.usages = calloc(config->nb_backends + 1, sizeof(*next.usages));
	rc = next.config.vips == NULL || next.config.backends == NULL || next.usages == NULL ?
		     -ENOMEM :
		     lb_services_fill(&next);
	if (rc == 0 && lb->connections != NULL) {
		moved = calloc(before.config.nb_backends + 1, sizeof(*moved));
		rc = moved == NULL ? -ENOMEM : lb_usages_inherit(&next, lb, moved);
	}
	if (rc == 0 && lb->connections != NULL) {
		next.config.max_connections = before.config.max_connections;
		lb->has_pending = true;
		services_take(lb, &next);
		rc = lb_backends_assign(lb, vips_are_same(&before, &next) ? moved : NULL);
		if (rc != 0)
			services_take(lb, &before);
	}
	free(moved);
	if (rc != 0) {
		services_free(&next);
		return rc;
	}
	services_take(lb, &next);
	services_free(&before);
	for (uint32_t life = 0; life < LB_LIVES; life++)
		lb->queues[life].idle_ns = config->idle_ns[life];
	return 0;
}

struct lb *
lb_create(const struct lb_config *config)
{
	struct lb *lb = calloc(1, sizeof(*lb));
	int rc;

	if (lb == NULL)
		return NULL;
	lb->counters = lb->pending_counters;
	for (uint32_t life = 0; life < LB_LIVES; life++)
		onvm_idle_queue_init(&lb->queues[life], config->idle_ns[life]);
	rc = lb_update(lb, config);
	if (rc == 0) {
		lb->connections = onvm_flow_table_create_plain(2 * config->max_connections,
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
	services_free(lb);
	onvm_flow_table_free(lb->connections);
	free(lb);
}
