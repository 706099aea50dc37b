/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/generator/mix.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_common.h>

#include "ports/generator/packet.h"

#define DEFAULT_SERVERS                                                                   \
	"198.18.0.10,198.18.0.11,198.18.7.53,198.19.255.1,198.18.128.200,2001:2:0:2::10," \
	"2001:2:0:2::11,2001:2:0:f00::53"
/** Ethernet, IPv6, TCP and the request's own bytes, or UDP's: the shortest that holds all. */
#define SIZE_MIN 64u

static int
add_server(struct onvm_gen_mix *mix, const char *text)
{
	if (mix->nb_servers4 < ONVM_GEN_SERVERS_MAX &&
	    inet_pton(AF_INET, text, mix->servers4[mix->nb_servers4]) == 1) {
		mix->nb_servers4++;
		return 0;
	}
	if (mix->nb_servers6 < ONVM_GEN_SERVERS_MAX &&
	    inet_pton(AF_INET6, text, mix->servers6[mix->nb_servers6]) == 1) {
		mix->nb_servers6++;
		return 0;
	}
	return -EINVAL;
}

static int
add_servers(struct onvm_gen_mix *mix, const char *list, char *error, size_t error_size)
{
	while (*list != '\0') {
		const size_t length = strcspn(list, ",");
		char text[INET6_ADDRSTRLEN] = "";

		if (length < sizeof(text))
			memcpy(text, list, length);
		if (add_server(mix, text) != 0) {
			snprintf(error, error_size,
				 "dst %.*s: expected an IPv4 or IPv6 address, at most %u of each",
				 (int)length, list, ONVM_GEN_SERVERS_MAX);
			return -EINVAL;
		}
		list += length + (list[length] == ',');
	}
	return 0;
}

int
onvm_gen_mix_init(struct onvm_gen_mix *mix, const struct onvm_gen_options *options, uint32_t room,
		  char *error, size_t error_size)
{
	int rc;

	memset(mix, 0, sizeof(*mix));
	if (options->ipv6_percent > 100 || options->vip_percent > 100 ||
	    (uint64_t)options->tcp_percent + options->udp_percent > 100) {
		snprintf(error, error_size,
			 "ipv6 %u %%, tcp %u %%, udp %u %%, vip %u %%: expected shares of 100",
			 options->ipv6_percent, options->tcp_percent, options->udp_percent,
			 options->vip_percent);
		return -EINVAL;
	}
	if (room < 1514 || (options->size != 0 && (options->size < SIZE_MIN ||
						   options->size > room + ONVM_GEN_CRC_BYTES))) {
		snprintf(error, error_size, "size %u: expected imix, or %u to %u bytes",
			 options->size, SIZE_MIN, room + ONVM_GEN_CRC_BYTES);
		return -EINVAL;
	}
	mix->seed = options->seed;
	mix->ipv6_percent = options->ipv6_percent;
	mix->tcp_percent = options->tcp_percent;
	mix->udp_percent = options->udp_percent;
	mix->size = options->size == 0 ? 0 : options->size - ONVM_GEN_CRC_BYTES;
	if (options->vip != NULL && options->vip_percent != 0) {
		if (inet_pton(AF_INET, options->vip, mix->vip) != 1 || options->vip_port == 0 ||
		    options->vip_port > UINT16_MAX) {
			snprintf(error, error_size,
				 "vip %s:%u: expected an IPv4 address and a port", options->vip,
				 options->vip_port);
			return -EINVAL;
		}
		mix->vip_port = (uint16_t)options->vip_port;
		mix->vip_percent = options->vip_percent;
	}
	rc = add_servers(mix, options->servers == NULL ? DEFAULT_SERVERS : options->servers, error,
			 error_size);
	if (rc != 0)
		return rc;
	if ((mix->nb_servers4 == 0 && mix->ipv6_percent < 100) ||
	    (mix->nb_servers6 == 0 && mix->ipv6_percent > 0)) {
		snprintf(error, error_size, "dst %s with ipv6 %u %%: an address family is missing",
			 options->servers, options->ipv6_percent);
		return -EINVAL;
	}
	return 0;
}

/** Draws: each takes some bits of a 64-bit random number and leaves the others. */
static inline uint32_t
draw(uint64_t *random, uint32_t below)
{
	const uint32_t value = (uint32_t)((*random & 0xffff) * below >> 16);

	*random = *random >> 16 | *random << 48;
	return value;
}

static void
plan_tcp(const struct onvm_gen_mix *mix, struct onvm_gen_plan *plan, uint64_t random)
{
	static const uint16_t ports[8] = {80, 443, 443, 443, 80, 8080, 22, 5432};

	plan->kind = ONVM_GEN_TCP;
	/* Most are short; one in sixteen is long. */
	plan->nb_requests = (uint16_t)(1 + draw(&random, 8));
	if (draw(&random, 16) == 0)
		plan->nb_requests = (uint16_t)(plan->nb_requests + 16 + draw(&random, 64));
	random = onvm_gen_mix64(random);
	plan->dst_port = ports[draw(&random, 8)];
	plan->ends_with_reset = draw(&random, 20) == 0;
	if (!plan->is_ipv6 && draw(&random, 100) < mix->vip_percent) {
		plan->dst = mix->vip;
		plan->dst_port = mix->vip_port;
	}
}

void
onvm_gen_mix_plan(const struct onvm_gen_mix *mix, uint32_t slot, uint32_t generation,
		  struct onvm_gen_plan *plan)
{
	const uint64_t seed = onvm_gen_mix64(mix->seed + 0x9e3779b97f4a7c15u);
	uint64_t random = onvm_gen_mix64(seed ^ ((uint64_t)slot << 32 | generation));
	uint32_t share, server;

	plan->tag = (uint32_t)onvm_gen_mix64(random);
	plan->is_ipv6 = draw(&random, 100) < mix->ipv6_percent;
	share = draw(&random, 100);
	server = draw(&random, 1 << 16);
	plan->dst = plan->is_ipv6 ? mix->servers6[server % RTE_MAX(mix->nb_servers6, 1u)] :
				    mix->servers4[server % RTE_MAX(mix->nb_servers4, 1u)];
	plan->ends_with_reset = false;
	plan->src_port = (uint16_t)(ONVM_GEN_FIRST_PORT +
				    slot % ONVM_GEN_SLOTS_PER_CLIENT * ONVM_GEN_PORTS_PER_SLOT +
				    generation % ONVM_GEN_PORTS_PER_SLOT);
	random = onvm_gen_mix64(random);
	if (share < mix->tcp_percent) {
		plan_tcp(mix, plan, random);
	} else if (share >= mix->tcp_percent + mix->udp_percent) {
		plan->kind = ONVM_GEN_ECHO;
		plan->nb_requests = (uint16_t)(1 + draw(&random, 4));
		plan->dst_port = 0;
	} else if (draw(&random, 2) == 0) {
		plan->kind = ONVM_GEN_DNS;
		plan->nb_requests = 1;
		plan->dst_port = ONVM_GEN_DNS_PORT;
	} else {
		plan->kind = ONVM_GEN_STREAM;
		plan->nb_requests = (uint16_t)(4 + draw(&random, 28));
		plan->dst_port = (uint16_t)(9000 + draw(&random, 8));
	}
}

void
onvm_gen_mix_sizes(const struct onvm_gen_mix *mix, uint32_t tag, uint32_t index, uint32_t *request,
		   uint32_t *reply)
{
	/* "Simple IMIX": 7 of 64, 4 of 594, 1 of 1518 bytes. */
	static const uint16_t imix[12] = {60, 60, 590, 60, 60, 590, 60, 590, 60, 1514, 60, 590};
	uint64_t random;

	if (mix->size != 0) {
		*request = *reply = mix->size;
		return;
	}
	random = onvm_gen_mix64(mix->seed ^ ((uint64_t)tag << 32 | index));
	*request = imix[draw(&random, 12)];
	*reply = imix[draw(&random, 12)];
}
