/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#include <errno.h>
#include <stdlib.h>

static bool
tables_create(struct router *router)
{
	const struct router_config *config = &router->config;

	router->neighbours = onvm_flow_table_create(config->max_neighbours,
						    sizeof(struct router_neighbour_key),
						    sizeof(struct router_neighbour));
	router->groups = calloc(ROUTER_GROUPS_MAX, sizeof(*router->groups));
	router->waiting = calloc(ROUTER_WAITING_MAX, sizeof(*router->waiting));
	router->originals = calloc(ROUTER_ORIGINALS, sizeof(*router->originals));
	return router->neighbours != NULL && router->groups != NULL && router->waiting != NULL &&
	       router->originals != NULL;
}

struct router *
router_create(const struct router_config *config)
{
	struct router *router = calloc(1, sizeof(*router));

	if (router == NULL)
		return NULL;
	router->config = *config;
	if (!tables_create(router)) {
		const int error = errno;

		router_free(router);
		errno = error;
		return NULL;
	}
	memset(router->interface_of, ROUTER_INTERFACES_MAX, sizeof(router->interface_of));
	memset(router->wire_of, 0xff, sizeof(router->wire_of)); /* ROUTER_NO_PORT */
	router->mtu_min = UINT16_MAX;
	router->first_ready = ROUTER_NONE;
	router->first_failed = ROUTER_NONE;
	for (uint32_t i = 0; i < ROUTER_WAITING_MAX; i++)
		router->waiting[i].next = i + 1 < ROUTER_WAITING_MAX ? i + 1 : ROUTER_NONE;
	return router;
}

void
router_free(struct router *router)
{
	if (router == NULL)
		return;
	onvm_lpm_free(router->lpm[0]);
	onvm_lpm_free(router->lpm[1]);
	onvm_flow_table_free(router->neighbours);
	free(router->groups);
	free(router->waiting);
	free(router->originals);
	free(router);
}

int
router_set_group(struct router *router, uint32_t index, const struct router_group *group)
{
	if (index >= ROUTER_GROUPS_MAX || group->nb_hops > ROUTER_HOPS_MAX)
		return -EINVAL;
	if (group->kind <= ROUTER_VIA && group->nb_hops == 0)
		return -EINVAL;
	for (uint32_t i = 0; i < group->nb_hops; i++)
		if (group->hops[i].weight == 0 || group->hops[i].interface >= ROUTER_INTERFACES_MAX)
			return -EINVAL;
	router->groups[index] = *group;
	return 0;
}

int
router_add_route(struct router *router, uint32_t ip_version, const uint8_t *prefix, uint8_t depth,
		 uint32_t group)
{
	struct onvm_lpm **const lpm = &router->lpm[ip_version == 6];

	if (group >= ROUTER_GROUPS_MAX)
		return -EINVAL;
	if (*lpm == NULL)
		*lpm = onvm_lpm_create(ip_version, router->config.max_routes);
	return *lpm == NULL ? -errno : onvm_lpm_add(*lpm, prefix, depth, group);
}

int
router_delete_route(struct router *router, uint32_t ip_version, const uint8_t *prefix,
		    uint8_t depth)
{
	struct onvm_lpm *const lpm = router->lpm[ip_version == 6];

	return lpm == NULL ? -EINVAL : onvm_lpm_delete(lpm, prefix, depth);
}

uint32_t
router_nb_neighbours(const struct router *router)
{
	return onvm_flow_table_count(router->neighbours);
}
