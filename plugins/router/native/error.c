/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#define NS 1000000000ull
#define QUOTE4_MAX (576 - 28)  /* RFC 1812 4.3.2.3 */
#define QUOTE6_MAX (1280 - 48) /* RFC 4443 2.4 (c) */

struct code {
	uint8_t type;
	uint8_t code;
};

static const struct code codes4[] = {
	[ROUTER_ERROR_TTL] = {11, 0},
	[ROUTER_ERROR_NET_UNREACHABLE] = {3, 0},
	[ROUTER_ERROR_HOST_UNREACHABLE] = {3, 1},
	[ROUTER_ERROR_PORT_UNREACHABLE] = {3, 3},
	[ROUTER_ERROR_TOO_BIG] = {3, 4},
};
static const struct code codes6[] = {
	[ROUTER_ERROR_TTL] = {3, 0},
	[ROUTER_ERROR_NET_UNREACHABLE] = {1, 0},
	[ROUTER_ERROR_HOST_UNREACHABLE] = {1, 3},
	[ROUTER_ERROR_PORT_UNREACHABLE] = {1, 4},
	[ROUTER_ERROR_TOO_BIG] = {2, 0},
};

void
router_keep_original(struct router *router, const struct onvm_pkt *pkt, uint32_t interface)
{
	struct router_original *const original =
		&router->originals[pkt->buffer & (ROUTER_ORIGINALS - 1)];

	original->buffer = pkt->buffer;
	original->interface = (uint8_t)interface;
	original->length = pkt->length < ROUTER_ORIGINAL_BYTES ? pkt->length :
								 ROUTER_ORIGINAL_BYTES;
	memcpy(original->frame, pkt->data, original->length);
}

static uint32_t
ip_length_of(const uint8_t *frame)
{
	return router_version_of(frame) == 4 ? onvm_load_be16(frame + 16) :
					       onvm_load_be16(frame + 18) + 40u;
}

/* Whether this is how @p pkt arrived; the buffer of a short packet may have had a long one. */
static bool
is_of(const struct router *router, const struct router_original *original,
      const struct onvm_pkt *pkt)
{
	return original->length != 0 && original->buffer == pkt->buffer &&
	       memcmp(original->frame + 12, pkt->data + 12, 2) == 0 &&
	       ip_length_of(original->frame) == ip_length_of(pkt->data) &&
	       ip_length_of(pkt->data) > router->mtu_min;
}

/* Take an error out of the bucket; it holds a tenth of a second's. */
static bool
take_token(struct router *router)
{
	const uint64_t per_s = router->setup.errors_per_s;
	const uint64_t full = per_s < 10 ? 1 : per_s / 10;
	const uint64_t elapsed = router->ctx->now_ns - router->errors_ns;
	uint64_t nb;

	if (per_s == 0)
		return false;
	nb = elapsed >= NS ? full : elapsed * per_s / NS;
	if (nb != 0) {
		router->errors = router->errors + nb > full ? full : router->errors + nb;
		router->errors_ns = router->ctx->now_ns;
	}
	if (router->errors == 0) {
		router->ctx->counters[ROUTER_ERRORS_LIMITED]++;
		return false;
	}
	router->errors--;
	return true;
}

/* RFC 1812 4.3.2.7, RFC 4443 2.4 (e): about what nothing is said. */
static bool
is_unspeakable(const uint8_t *frame, uint32_t length, uint32_t ip_version)
{
	const uint8_t *const ip = frame + 14;
	const uint32_t header_length = ip_version == 4 ? (ip[0] & 15) * 4u : 40u;
	const uint8_t protocol = ip_version == 4 ? ip[9] : ip[6];
	const bool has_type = length > 14 + header_length;
	const uint8_t type = has_type ? ip[header_length] : 0;

	if (ip_version == 4)
		return (onvm_load_be16(ip + 6) & 0x1fff) != 0 || ip[12] >= 224 || ip[12] == 0 ||
		       ip[12] == 127 ||
		       (protocol == ONVM_PROTO_ICMP && type != 0 && type != 8 && type < 13);
	return ip[8] == 0xff || (ip[8] == 0 && ip[9] == 0) ||
	       (protocol == ONVM_PROTO_ICMPV6 && type < 128);
}

static void
make4(uint8_t *data, const uint8_t *frame, uint16_t quoted, const uint8_t *source, struct code code,
      uint16_t mtu)
{
	uint8_t *const ip = data + 14, *const icmp = ip + 20;
	uint16_t sum;

	memset(ip, 0, 28);
	ip[0] = 0x45;
	ip[1] = 0xc0; /* RFC 1812 4.3.2.5 */
	onvm_store_be16(ip + 2, (uint16_t)(28 + quoted));
	ip[8] = 64;
	ip[9] = ONVM_PROTO_ICMP;
	memcpy(ip + 12, source, 4);
	memcpy(ip + 16, frame + 26, 4);
	router_store_ipv4_checksum(ip, 20);
	icmp[0] = code.type;
	icmp[1] = code.code;
	onvm_store_be16(icmp + 6, mtu);
	memcpy(icmp + 8, frame + 14, quoted);
	sum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, icmp, 8u + quoted));
	memcpy(icmp + 2, &sum, sizeof(sum));
}

static void
make6(uint8_t *data, const uint8_t *frame, uint16_t quoted, const uint8_t *source, struct code code,
      uint16_t mtu)
{
	uint8_t *const ip = data + 14, *const icmp = ip + 40;

	memset(ip, 0, 48);
	ip[0] = 0x60;
	onvm_store_be16(ip + 4, (uint16_t)(8 + quoted));
	ip[6] = ONVM_PROTO_ICMPV6;
	ip[7] = 64;
	memcpy(ip + 8, source, ONVM_ADDRESS_BYTES);
	memcpy(ip + 24, frame + 22, ONVM_ADDRESS_BYTES);
	icmp[0] = code.type;
	icmp[1] = code.code;
	onvm_store_be32(icmp + 4, mtu);
	memcpy(icmp + 8, frame + 14, quoted);
	router_store_icmp6_checksum(ip, 8u + quoted);
}

void
router_send_error(struct router *router, const struct onvm_pkt *pkt, enum router_error error,
		  uint32_t interface, uint16_t mtu)
{
	const struct router_original *const original =
		&router->originals[pkt->buffer & (ROUTER_ORIGINALS - 1)];
	const uint8_t *frame = pkt->data, *source;
	uint32_t length = pkt->length, ip_version, head, most;
	struct router_hop connected;
	const struct router_hop *hop = NULL;
	struct onvm_pkt *made;
	uint16_t quoted;

	/* NFs may have translated it since: the sender knows it only as it was. */
	if (interface == ROUTER_NONE && is_of(router, original, pkt)) {
		frame = original->frame;
		length = original->length;
		interface = original->interface;
	}
	ip_version = router_version_of(frame);
	if (is_unspeakable(frame, length, ip_version))
		return;
	if (interface == ROUTER_NONE) {
		hop = router_hop_to(router, ip_version, frame + (ip_version == 4 ? 26 : 22), 0,
				    &connected);
		if (hop == NULL)
			return;
		interface = hop->interface;
	}
	if (interface >= router->setup.nb_interfaces)
		return; /* it has gone since */
	source = router_source_on(router, interface, ip_version,
				  frame + (ip_version == 4 ? 26 : 22));
	if (source == NULL || !take_token(router))
		return;
	made = router->ctx->originate(router->ctx);
	if (made == NULL)
		return;
	head = 14u + (ip_version == 4 ? 28u : 48u);
	most = ip_version == 4 ? QUOTE4_MAX : QUOTE6_MAX;
	if (made->tailroom < head + most)
		most = made->tailroom - head;
	quoted = (uint16_t)(length - 14 < most ? length - 14 : most);
	onvm_store_be16(made->data + 12,
			ip_version == 4 ? ONVM_ETHERTYPE_IPV4 : ONVM_ETHERTYPE_IPV6);
	if (ip_version == 4)
		make4(made->data, frame, quoted, source, codes4[error], mtu);
	else
		make6(made->data, frame, quoted, source, codes6[error], mtu);
	made->length = (uint16_t)(head + quoted);
	router->ctx->counters[ROUTER_ERRORS_SENT]++;
	if (hop == NULL) {
		memcpy(made->data, frame + ROUTER_MAC_BYTES, ROUTER_MAC_BYTES);
		memcpy(made->data + ROUTER_MAC_BYTES, router->interfaces[interface].link.mac,
		       ROUTER_MAC_BYTES);
		router_out(router, made, interface);
	} else if (router_address_frame(router, made, hop, ip_version) == ROUTER_SENT) {
		router_out(router, made, interface);
	}
}
