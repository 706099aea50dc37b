/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NAT_H_
#define _ONVM_NAT_H_

/**
 * @file
 * Network address and port translation for IPv4: TCP, UDP, ICMP echo, ICMP errors.
 *
 * Theory of operation. A *mapping* ties an inside endpoint (address, port or echo identifier,
 * protocol) to a port of the external address, whatever the endpoint talks to (RFC 4787 REQ-1). A
 * *session* is a mapping together with one remote endpoint: it has the timer, and for TCP the
 * state. A mapping lives as long as one of its sessions. Outbound, one look-up of the session
 * gives the mapping; inbound, an array by external port does.
 *
 * binding.c keeps mappings, sessions and ports; burst.c is what happens to packets; error.c
 * translates ICMP errors; handover.c saves sessions and takes over those of another instance, with
 * their external ports, which are *inherited*; nat.c makes and frees all of it.
 *
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/icmp_error.h>
#include <onvm/nf.h>
#include <onvm/tables.h>
#include <onvm/tcp_track.h>

#define NAT_INSIDE_MAX 16
#define NAT_PORTS 65536u

/** In the order of `drop_reasons` in onvm-nf.toml. */
enum nat_reason {
	NAT_DROP_MALFORMED,
	NAT_DROP_FRAGMENT,
	NAT_DROP_PROTOCOL,
	NAT_DROP_NO_MAPPING,
	NAT_DROP_FILTERED,
	NAT_DROP_EXHAUSTED,
	NAT_DROP_TABLE_FULL,
	NAT_NO_DROP, /**< not a reason: go on */
};

/** In the order of `counters` in onvm-nf.toml. */
enum nat_counter {
	NAT_TRANSLATED_OUT,
	NAT_TRANSLATED_IN,
	NAT_HAIRPINNED,
	NAT_ICMP_ERRORS,
	NAT_PASSED,
	NAT_MAPPINGS_OPENED,
	NAT_MAPPINGS_CLOSED,
	NAT_SESSIONS_OPENED,
	NAT_SESSIONS_EXPIRED,
};

/** RFC 4787 section 5. */
enum nat_filtering {
	NAT_FILTER_NONE,    /**< endpoint-independent */
	NAT_FILTER_ADDRESS, /**< address-dependent */
	NAT_FILTER_ADDRESS_AND_PORT,
};

/** Protocols have port spaces of their own. */
enum nat_space {
	NAT_TCP,
	NAT_UDP,
	NAT_ICMP,
	NAT_SPACES,
};

struct nat_network {
	uint32_t address, mask; /**< host order */
};

struct nat_config {
	uint8_t external[4];
	uint32_t first_port, end_port; /**< the block of the external address */
	uint32_t max_sessions;
	uint32_t nb_inside; /**< 0: every address is inside */
	struct nat_network inside[NAT_INSIDE_MAX];
	uint64_t tcp_established_ns, tcp_transitory_ns, udp_ns, icmp_ns;
	uint8_t filtering; /**< enum nat_filtering */
	uint8_t keeps_parity;
	uint8_t refreshes_inbound; /**< UDP and ICMP; TCP always */
};

/** An inside endpoint: key of a mapping. */
struct nat_endpoint {
	uint8_t address[4];
	uint8_t port[2];
	uint8_t protocol;
	uint8_t tag
		[3]; /**< zero, or of an inherited mapping beside the endpoint's own: its port, 1 */
	uint8_t pad[6];
};
static_assert(sizeof(struct nat_endpoint) == 16, "looked up in place");

/** A mapping's remote end added: key of a session; of a peer with remote_port 0. */
struct nat_session_key {
	uint8_t inside[4], remote[4];
	uint8_t inside_port[2], remote_port[2];
	uint8_t protocol;
	uint8_t pad[3];
};
static_assert(sizeof(struct nat_session_key) == 16, "looked up in place");

struct nat_mapping {
	uint8_t port[2]; /**< external, network order */
	uint8_t space;	 /**< enum nat_space */
	uint8_t pad;
	uint32_t nb_sessions;
};

struct nat_session {
	int32_t mapping;   /**< slot */
	uint8_t tcp_state; /**< enum onvm_tcp_track */
	uint8_t pad[3];
};

struct nat {
	struct nat_config config;
	struct onvm_flow_table *mappings, *sessions;
	struct onvm_flow_table
		*peers;	    /**< sessions per remote address; only when filtering by it */
	uint64_t *counters; /**< the running burst's; for callbacks of expiry */
	uint64_t unused_counters[ONVM_COUNTERS_MAX]; /**< counted into before the first burst */
	uint32_t nb_inherited;			     /**< mappings of ports outside the block */
	uint32_t nb_used[NAT_SPACES];		     /**< ports of the block */
	uint64_t used[NAT_SPACES][NAT_PORTS / 64];
	int32_t mapping_of[NAT_SPACES][NAT_PORTS]; /**< by external port; below 0: none */
};

struct nat *nat_create(const struct nat_config *config);
void nat_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void nat_free(struct nat *nat);

/* ---- binding.c ---- */

/** Port space of a protocol; NAT_SPACES for one that is not translated. */
static inline enum nat_space
nat_space_of(uint8_t protocol)
{
	switch (protocol) {
	case ONVM_PROTO_TCP:
		return NAT_TCP;
	case ONVM_PROTO_UDP:
		return NAT_UDP;
	case ONVM_PROTO_ICMP:
		return NAT_ICMP;
	default:
		return NAT_SPACES;
	}
}

/**
 * Session of @p key, made together with its mapping if need be.
 *
 * @return its slot, or -reason - 1 (enum nat_reason)
 */
int32_t nat_session_open(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns);

/** Note a packet of the session: TCP state and timer. */
void nat_session_use(struct nat *nat, int32_t slot, uint8_t protocol, uint8_t tcp_flags,
		     bool is_inbound, uint64_t now_ns);

/** Forget idle sessions, and mappings with their last one; paced by the clock. */
void nat_expire(struct nat *nat, uint64_t now_ns);

/** May the remote end of @p key send to the mapping? @p session: slot of @p key, or below 0. */
bool nat_filter_allows(struct nat *nat, const struct nat_session_key *key, int32_t session);

/** Inside endpoint behind an external port (network order), or NULL. */
static inline const struct nat_endpoint *
nat_endpoint_behind(struct nat *nat, enum nat_space space, const uint8_t *port)
{
	const int32_t slot = nat->mapping_of[space][onvm_load_be16(port)];

	return slot < 0 ? NULL : onvm_flow_table_key(nat->mappings, slot);
}

static inline bool
nat_port_is_own(const struct nat *nat, uint32_t port)
{
	return port >= nat->config.first_port && port < nat->config.end_port;
}

/** Close a mapping without sessions. */
void nat_mapping_release(struct nat *nat, int32_t slot);
/** A session of a mapping, with its timer; the slot, or below 0 when the table is full. */
int32_t nat_session_add(struct nat *nat, const struct nat_session_key *key, int32_t mapping,
			uint8_t tcp_state, uint64_t now_ns);

/* ---- handover.c ---- */

/** A session as it is saved. */
struct nat_saved {
	struct nat_session_key key;
	uint8_t port[2]; /**< external, network order */
	uint8_t tcp_state;
	uint8_t pad[5];
	uint64_t age_ns; /**< since it was used */
};
static_assert(sizeof(struct nat_saved) == 32, "it lies in snapshots");

uint32_t nat_nb_sessions(const struct nat *nat);
/** Save up to @p nb sessions; @return how many. */
uint32_t nat_save(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint64_t now_ns);
/**
 * Take sessions over, with their external ports.
 *
 * @return 0, or nothing has changed: -ENOSPC without room for them, -EEXIST when one of their ports
 *         is another endpoint's here, -EINVAL when they are not what nat_save() gives
 */
int nat_restore(struct nat *nat, const struct nat_saved *saved, uint32_t nb, uint64_t now_ns);
/** Mappings of ports outside this instance's block. */
uint32_t nat_nb_inherited(const struct nat *nat);

/* ---- error.c ---- */

/** Translate an ICMP error on its way out; the reason to drop it, or NAT_NO_DROP. */
enum nat_reason nat_error_out(struct nat *nat, uint8_t *data, const struct onvm_headers *headers);
/** The same on its way in. */
enum nat_reason nat_error_in(struct nat *nat, uint8_t *data, const struct onvm_headers *headers);

#endif /* _ONVM_NAT_H_ */
