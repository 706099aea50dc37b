/* SPDX-License-Identifier: Apache-2.0 */
#include "nat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int
tables_create(struct nat *nat)
{
	const struct nat_config *config = &nat->config;

	/* As many as sessions: those that are inherited have ports outside the block. */
	nat->mappings = onvm_flow_table_create(config->max_sessions, sizeof(struct nat_endpoint),
					       sizeof(struct nat_mapping));
	if (nat->mappings == NULL)
		return -errno;
	nat->sessions = onvm_flow_table_create(config->max_sessions, sizeof(struct nat_session_key),
					       sizeof(struct nat_session));
	if (nat->sessions == NULL)
		return -errno;
	if (config->filtering == NAT_FILTER_ADDRESS) {
		nat->peers = onvm_flow_table_create(config->max_sessions,
						    sizeof(struct nat_session_key),
						    sizeof(uint32_t));
		if (nat->peers == NULL)
			return -errno;
	}
	return 0;
}

struct nat *
nat_create(const struct nat_config *config)
{
	struct nat *nat;
	int rc;

	if (config->first_port >= config->end_port || config->end_port > NAT_PORTS ||
	    config->nb_inside > NAT_INSIDE_MAX) {
		errno = EINVAL;
		return NULL;
	}
	nat = calloc(1, sizeof(*nat));
	if (nat == NULL)
		return NULL;
	nat->config = *config;
	nat->counters = nat->unused_counters;
	memset(nat->mapping_of, 0xff, sizeof(nat->mapping_of));
	rc = tables_create(nat);
	if (rc != 0) {
		nat_free(nat);
		errno = -rc;
		return NULL;
	}
	return nat;
}

void
nat_free(struct nat *nat)
{
	if (nat == NULL)
		return;
	onvm_flow_table_free(nat->mappings);
	onvm_flow_table_free(nat->sessions);
	onvm_flow_table_free(nat->peers);
	free(nat);
}
