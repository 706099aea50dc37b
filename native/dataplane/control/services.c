/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What services want of steering: which instance a flow gets, how long it is remembered, and the
 * form of packets: as they are on the wire, datagrams as a whole.
 */

#include "control/services.h"

#include <errno.h>
#include <string.h>

#include "control/publish.h"
#include "flows/ageing.h"

/** Datagrams in fragments that are known at once, and their fragments: those are buffers. */
#define DATAGRAMS_MAX 2048u
#define PIECES_MAX 8192u

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

static uint8_t
fragments_of(const struct onvm_steering *steering, const struct onvm_chain *chain)
{
	uint8_t fragments = ONVM_FRAGMENTS_PASS;

	for (uint32_t i = 0; i < chain->nb_services; i++)
		fragments = RTE_MAX(fragments, steering->fragments[chain->services[i]]);
	return fragments;
}

void
onvm_services_set_packet_forms(struct onvm_dataplane *dp)
{
	bool wire_sized[ONVM_PORTS_MAX] = {false};
	uint8_t fragments[ONVM_PORTS_MAX] = {ONVM_FRAGMENTS_PASS};

	for (uint32_t id = 1; id < ONVM_CHAINS_MAX; id++) {
		const struct onvm_chain *chain = &dp->steering.chains[id];
		const uint16_t ends[] = {chain->near_port, chain->far_port};

		if (!chain->is_used)
			continue;
		for (uint32_t i = 0; i < RTE_DIM(ends); i++) {
			if (ends[i] >= ONVM_PORTS_MAX)
				continue;
			wire_sized[ends[i]] |= is_wire_sized(&dp->steering, chain);
			fragments[ends[i]] =
				RTE_MAX(fragments[ends[i]], fragments_of(&dp->steering, chain));
		}
	}
	for (uint32_t port = 0; port < ONVM_PORTS_MAX; port++) {
		/* Peers send packets of any chain: what an NF here may meet. */
		for (uint32_t i = 0; dp->ports[port].is_tunnel && i < ONVM_SERVICES_MAX; i++)
			fragments[port] = RTE_MAX(fragments[port], dp->steering.fragments[i]);
		__atomic_store_n(&dp->ports[port].is_wire_sized, wire_sized[port],
				 __ATOMIC_RELAXED);
		/* P1: pairs with the acquire load P2 in worker/fragments.c: there is a table. */
		__atomic_store_n(&dp->ports[port].fragments, fragments[port], __ATOMIC_RELEASE);
	}
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
	onvm_services_set_packet_forms(&onvm_dp);
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

/** Make what reassembly needs, once. */
static int
prepare_reassembly(struct onvm_dataplane *dp)
{
	const uint32_t nb_pieces = RTE_MIN(dp->config.nb_buffers / 8, PIECES_MAX);
	struct onvm_reassembly *made;
	int rc;

	if (dp->reassembly != NULL)
		return 0;
	rc = onvm_packet_memory_add_large(&dp->memory);
	if (rc != 0)
		return onvm_fail(rc, "large buffers: %s", strerror(-rc));
	made = onvm_reassembly_create(&dp->memory, DATAGRAMS_MAX, RTE_MAX(nb_pieces, 1u));
	if (made == NULL)
		return onvm_fail(-ENOMEM, "table of %u datagrams in fragments: no memory",
				 DATAGRAMS_MAX);
	__atomic_or_fetch(&dp->has_offloads, ONVM_HAS_FRAGMENTED, __ATOMIC_RELAXED);
	/* P1: pairs with the acquire load P2 in worker/fragments.c. */
	__atomic_store_n(&dp->reassembly, made, __ATOMIC_RELEASE);
	return 0;
}

int
onvm_dp_service_fragments(uint16_t service, uint32_t fragments)
{
	struct onvm_dataplane *dp = &onvm_dp;
	int rc = check_service(service);

	if (rc == 0 && fragments > ONVM_FRAGMENTS_REASSEMBLE)
		rc = onvm_fail(-EINVAL, "there is no form of fragments %u", fragments);
	if (rc == 0 && fragments != ONVM_FRAGMENTS_PASS)
		rc = prepare_reassembly(dp);
	if (rc != 0)
		return rc;
	dp->steering.fragments[service] = (uint8_t)fragments;
	onvm_services_set_packet_forms(dp);
	return 0;
}
