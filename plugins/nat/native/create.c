/* SPDX-License-Identifier: Apache-2.0 */
#include "nat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ETHERNET_BYTES 14u

static int
ports_create(struct nat *nat)
{
	nat->ports = onvm_memory_create(nat->config.nb_externals * sizeof(*nat->ports));
	if (nat->ports == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < nat->config.nb_externals; i++)
		for (uint32_t space = 0; space < NAT_SPACES; space++) {
			struct nat_ports *const ports = &nat->ports[i][space];

			memset(ports->mapping_of, 0xff, sizeof(ports->mapping_of));
			ports->resting = calloc(NAT_PORTS, sizeof(*ports->resting));
			if (ports->resting == NULL)
				return -ENOMEM;
		}
	return 0;
}

static int
tables_create(struct nat *nat)
{
	const struct nat_config *const config = &nat->config;
	/* No more than there are ports, and none without a session. */
	const uint32_t nb_ports = NAT_SPACES * NAT_PORTS * config->nb_externals;
	const uint32_t nb_mappings = config->max_sessions < nb_ports ? config->max_sessions + 1 :
								       nb_ports;
	/* Forwarded ones have none. */
	const uint32_t nb_kept = nb_mappings + config->nb_forwards;
	/* Each has a port at least; where most have one or two, more of them are no use. */
	const uint32_t most = NAT_PORTS / 2 * config->nb_externals;
	const size_t session = sizeof(struct nat_session_key);

	nat->mappings = onvm_flow_table_create_plain(nb_kept, sizeof(struct nat_endpoint),
						     sizeof(struct nat_mapping));
	if (nat->mappings == NULL)
		return -errno;
	nat->max_subscribers = nb_kept < most ? nb_kept : most;
	nat->subscribers = onvm_flow_table_create_plain(nat->max_subscribers,
							sizeof(struct nat_subscriber),
							sizeof(struct nat_subscription));
	if (nat->subscribers == NULL)
		return -errno;
	nat->realms = onvm_flow_table_create_plain(NAT_REALMS_MAX,
						   ONVM_VLANS_MAX * sizeof(uint16_t),
						   sizeof(uint32_t));
	if (nat->realms == NULL)
		return -errno;
	nat->sessions = onvm_flow_table_create_plain(config->max_sessions, (uint32_t)session,
						     sizeof(struct nat_session));
	if (nat->sessions == NULL)
		return -errno;
	nat->datagrams = nat_fragment_table_create();
	if (nat->datagrams == NULL)
		return -errno;
	nat->unsolicited = nat_unsolicited_create();
	if (nat->unsolicited == NULL)
		return -ENOMEM;
	if (config->nat64.bits != 0) {
		const int rc = nat_host_create(nat, nat->max_subscribers);

		if (rc != 0)
			return rc;
	}
	if (config->logs_mappings) {
		const int rc = nat_log_create(nat);

		if (rc != 0)
			return rc;
	}
	if (config->nb_pairs != 0) {
		const int rc = nat_one_to_one_create(nat);

		if (rc != 0)
			return rc;
	}
	if (config->filtering == NAT_FILTER_ADDRESS) {
		nat->peers = onvm_flow_table_create_plain(config->max_sessions, (uint32_t)session,
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
	    config->nb_inside > NAT_INSIDE_MAX || config->nb_externals == 0 ||
	    config->nb_externals > NAT_EXTERNALS_MAX || config->nb_pairs > NAT_PAIRS_MAX ||
	    config->nb_forwards > NAT_FORWARDS_MAX || config->nb_nptv6 > NPTV6_PREFIXES_MAX) {
		errno = EINVAL;
		return NULL;
	}
	nat = calloc(1, sizeof(*nat));
	if (nat == NULL)
		return NULL;
	nat->config = *config;
	nat->counters = nat->pending_counters;
	nat->has_detours = config->nat64.bits != 0 || config->nb_pairs != 0;
	nat->handles_ipv6 = config->nat64.bits != 0 || config->nb_nptv6 != 0;
	nat_set_mtu(nat, 0, 0);
	nat->identification = (uint16_t)config->key[0];
	for (uint32_t life = 0; life < NAT_LIVES; life++)
		onvm_idle_queue_init(&nat->queues[life], config->idle_ns[life]);
	rc = ports_create(nat);
	if (rc == 0)
		rc = tables_create(nat);
	if (rc == 0)
		rc = nat_forwards_add(nat);
	if (rc != 0) {
		nat_free(nat);
		errno = -rc;
		return NULL;
	}
	return nat;
}

void
nat_set_routed(struct nat *nat, bool is_routed, bool is_tagged)
{
	nat->is_routed = is_routed;
	nat->is_tagged = is_tagged;
}

void
nat_set_mtu(struct nat *nat, uint32_t mtu, uint32_t link_mtu)
{
	nat->mtu = mtu;
	nat->link_mtu = link_mtu;
	nat->frame_max = mtu == 0 ? UINT16_MAX : mtu + ETHERNET_BYTES;
}

void
nat_free(struct nat *nat)
{
	if (nat == NULL)
		return;
	for (uint32_t i = 0; nat->ports != NULL && i < nat->config.nb_externals; i++)
		for (uint32_t space = 0; space < NAT_SPACES; space++)
			free(nat->ports[i][space].resting);
	onvm_memory_free(nat->ports, nat->config.nb_externals * sizeof(*nat->ports));
	onvm_flow_table_free(nat->mappings);
	onvm_flow_table_free(nat->subscribers);
	onvm_flow_table_free(nat->realms);
	onvm_flow_table_free(nat->sessions);
	onvm_flow_table_free(nat->peers);
	onvm_flow_table_free(nat->datagrams);
	onvm_flow_table_free(nat->hosts);
	onvm_flow_table_free(nat->pairs);
	free(nat->unsolicited);
	free(nat->events);
	free(nat);
}
