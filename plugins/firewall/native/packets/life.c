/* SPDX-License-Identifier: Apache-2.0 */
#include "../firewall.h"

#include <errno.h>
#include <stdlib.h>

#include "../connection.h"
#include "../rules/event.h"
#include "../rules/matching.h"
#include "../rules/rules.h"

#define SOURCE_BYTES 16

static int
tables_create(struct firewall *firewall)
{
	const struct firewall_config *const config = &firewall->config;

	if (!config->is_stateful)
		return 0;
	firewall->connections = onvm_flow_table_create(config->max_connections,
						       sizeof(struct connection_key),
						       sizeof(struct connection));
	if (firewall->connections == NULL)
		return -errno;
	if (config->max_per_source == 0)
		return 0;
	firewall->sources =
		onvm_flow_table_create(config->max_connections, SOURCE_BYTES, sizeof(uint32_t));
	return firewall->sources == NULL ? -errno : 0;
}

struct firewall *
firewall_create(const struct firewall_config *config)
{
	struct firewall *firewall = calloc(1, sizeof(*firewall));
	int rc;

	if (firewall == NULL)
		return NULL;
	firewall->config = *config;
	rc = rules_create(&firewall->rules, config);
	if (rc == 0)
		rc = tables_create(firewall);
	if (rc == 0)
		rc = event_ring_create(config, &firewall->events);
	if (rc != 0) {
		firewall_free(firewall);
		errno = -rc;
		return NULL;
	}
	firewall->config.rules4 = firewall->config.rules6 = NULL;
	firewall->config.entries = NULL;
	firewall->config.conditional = firewall->config.pairs = NULL;
	firewall->config.spans = NULL;
	firewall->config.conditions = NULL;
	firewall->config.macs = NULL;
	firewall->config.sets = NULL;
	firewall->config.limits = NULL;
	return firewall;
}

void
firewall_free(struct firewall *firewall)
{
	if (firewall == NULL)
		return;
	rules_free(&firewall->rules);
	free(firewall->events);
	onvm_flow_table_free(firewall->connections);
	onvm_flow_table_free(firewall->sources);
	free(firewall);
}

int
firewall_bind_ports(struct firewall *firewall, const uint8_t *table, uint32_t nb_ports)
{
	if (firewall->rules.matching == NULL)
		return 0;
	return matching_bind_ports(firewall->rules.matching, table, nb_ports);
}
