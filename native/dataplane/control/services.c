/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What services want of steering: which instance a flow gets, how long it is remembered, and
 * packets as they are on the wire.
 */

#include "control/services.h"

#include <errno.h>
#include <string.h>

#include "control/publish.h"
#include "flows/ageing.h"

/** Lives that a chain gives its flows at least, if flow_idle_ms is not less. */
static const uint32_t least_ms[ONVM_FLOW_LIVES] = {
	[ONVM_FLOW_TCP_OPENING] = 60000, [ONVM_FLOW_TCP] = UINT32_MAX,
	[ONVM_FLOW_TCP_CLOSING] = 30000, [ONVM_FLOW_UDP_OPENING] = 60000,
	[ONVM_FLOW_UDP] = UINT32_MAX,	 [ONVM_FLOW_ICMP] = 60000,
	[ONVM_FLOW_OTHER] = UINT32_MAX,
};

static struct {
	bool has_told;
	uint32_t lives_ms[ONVM_FLOW_LIVES];
} told[ONVM_SERVICES_MAX];

static bool
is_wire_sized(const struct onvm_steering *steering, const struct onvm_chain *chain)
{
	for (uint32_t i = 0; i < chain->nb_services; i++)
		if (steering->wire_sized[chain->services[i]])
			return true;
	return false;
}

void
onvm_services_set_wire_sizes(struct onvm_dataplane *dp)
{
	bool wanted[ONVM_PORTS_MAX] = {false};

	for (uint32_t id = 1; id < ONVM_CHAINS_MAX; id++) {
		const struct onvm_chain *chain = &dp->steering.chains[id];

		if (!chain->is_used || !is_wire_sized(&dp->steering, chain))
			continue;
		if (chain->near_port < ONVM_PORTS_MAX)
			wanted[chain->near_port] = true;
		if (chain->far_port < ONVM_PORTS_MAX)
			wanted[chain->far_port] = true;
	}
	for (uint32_t port = 0; port < ONVM_PORTS_MAX; port++)
		__atomic_store_n(&dp->ports[port].is_wire_sized, wanted[port], __ATOMIC_RELAXED);
}

void
onvm_services_set_lives(struct onvm_dataplane *dp, uint16_t chain)
{
	const struct onvm_chain *of = &dp->steering.chains[chain];
	const uint32_t idle_ms = dp->config.flow_idle_ms;
	uint32_t lives[ONVM_FLOW_LIVES];

	for (uint32_t i = 0; i < ONVM_FLOW_LIVES; i++) {
		lives[i] = RTE_MIN(idle_ms, least_ms[i]);
		for (uint32_t k = 0; k < of->nb_services; k++) {
			const uint16_t service = of->services[k];

			lives[i] = RTE_MAX(lives[i], told[service].has_told ?
							     told[service].lives_ms[i] :
							     idle_ms);
		}
	}
	onvm_flow_set_lives(&dp->flows, chain, lives);
}

static int
check_service(uint16_t service)
{
	if (service == 0 || service >= ONVM_SERVICES_MAX)
		return onvm_fail(-EINVAL, "there is no service %u", service);
	return 0;
}

int
onvm_dp_service_wire_sized(uint16_t service)
{
	const int rc = check_service(service);

	if (rc != 0)
		return rc;
	onvm_dp.steering.wire_sized[service] = true;
	onvm_services_set_wire_sizes(&onvm_dp);
	return 0;
}

int
onvm_dp_service_lives(uint16_t service, const uint32_t lives_ms[ONVM_FLOW_LIVES])
{
	const int rc = check_service(service);

	if (rc != 0)
		return rc;
	told[service].has_told = true;
	memcpy(told[service].lives_ms, lives_ms, sizeof(told[service].lives_ms));
	for (uint16_t chain = 1; chain < ONVM_CHAINS_MAX; chain++)
		if (onvm_dp.steering.chains[chain].is_used)
			onvm_services_set_lives(&onvm_dp, chain);
	return 0;
}

int
onvm_dp_service_affinity(uint16_t service, uint32_t affinity)
{
	const int rc = check_service(service);

	if (rc != 0)
		return rc;
	if (affinity > ONVM_AFFINITY_DESTINATION)
		return onvm_fail(-EINVAL, "there is no affinity %u", affinity);
	if (onvm_dp.steering.affinity[service] == affinity)
		return 0;
	onvm_dp.steering.affinity[service] = (uint8_t)affinity;
	return onvm_publish_candidates(&onvm_dp);
}
