/* SPDX-License-Identifier: Apache-2.0 */
#include "firewall.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"

/* State matters only where a packet of a connection could be dropped. */
static bool
tracking_matters(const struct firewall_config *config)
{
	if (!config->default_accepts)
		return true;
	for (uint32_t i = 0; i < config->nb_accepts; i++)
		if (!config->accepts[i])
			return true;
	return false;
}

static int
rules_create(struct firewall *firewall, const struct firewall_config *config)
{
	const uint32_t nb = config->nb_accepts;

	firewall->accepts = calloc(nb + 1, sizeof(*firewall->accepts));
	firewall->hits = calloc(nb + 1, sizeof(*firewall->hits));
	if (firewall->accepts == NULL || firewall->hits == NULL)
		return -ENOMEM;
	if (nb != 0)
		memcpy(firewall->accepts, config->accepts, nb);
	if (config->nb_rules4 != 0) {
		firewall->acl4 = onvm_acl_create(4, config->rules4, config->nb_rules4);
		if (firewall->acl4 == NULL)
			return -errno;
	}
	if (config->nb_rules6 != 0) {
		firewall->acl6 = onvm_acl_create(6, config->rules6, config->nb_rules6);
		if (firewall->acl6 == NULL)
			return -errno;
	}
	return 0;
}

struct firewall *
firewall_create(const struct firewall_config *config)
{
	struct firewall *firewall = calloc(1, sizeof(*firewall));
	int rc;

	if (firewall == NULL)
		return NULL;
	firewall->config = *config;
	rc = rules_create(firewall, config);
	if (rc == 0 && config->is_stateful && tracking_matters(config)) {
		firewall->connections = onvm_flow_table_create(config->max_connections,
							       sizeof(struct connection_key),
							       sizeof(struct connection));
		if (firewall->connections == NULL)
			rc = -errno;
	}
	if (rc != 0) {
		firewall_free(firewall);
		errno = -rc;
		return NULL;
	}
	firewall->config.rules4 = firewall->config.rules6 = NULL;
	firewall->config.accepts = NULL;
	return firewall;
}

void
firewall_free(struct firewall *firewall)
{
	if (firewall == NULL)
		return;
	onvm_acl_free(firewall->acl4);
	onvm_acl_free(firewall->acl6);
	onvm_flow_table_free(firewall->connections);
	free(firewall->accepts);
	free(firewall->hits);
	free(firewall);
}
