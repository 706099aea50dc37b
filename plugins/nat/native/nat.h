/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NAT_H_
#define _ONVM_NAT_H_

/**
 * @file
 * Network address and port translation for IPv4: TCP, UDP, ICMP queries, ICMP errors.
 *
 * Theory of operation. A *mapping* ties an inside endpoint (address, port or query identifier,
 * protocol, VLANs) to a port of an external address, whatever the endpoint talks to (RFC 4787
 * REQ-1). A *session* is a mapping together with one remote endpoint: it has the timer, and for TCP
 * the state, and lies in the queue of its idle time. A mapping lives as long as one of its sessions.
 * Outbound, one look-up of the session gives the mapping; inbound, an array by external port does.
 * A freed port rests before another mapping gets it.
 *
 * port.c hands out external ports; binding.c keeps mappings, sessions and subscribers; burst.c is
 * what happens to packets; fragment.c translates fragments behind the first; error.c translates ICMP
 * errors, own_error.c sends some, unsolicited.c late; ipv6.c tells apart what IPv6 packets there are; nat64.c lets IPv6 hosts
 * take part (host.c), with the translation of siit.c; handover.c saves sessions and takes over
 * those of another instance, with their external ports, which are *inherited*; list.c shows and
 * removes entries; log.c tells what happens to mappings; nat.c makes and frees all of it.
 *
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/icmp_error.h>
#include <onvm/idle_queue.h>
#include <onvm/nf.h>
#include <onvm/tables.h>
#include <onvm/tcp_track.h>

#include "nptv6.h"
#include "siit.h"

#define NAT_INSIDE_MAX 16
#define NAT_EXTERNALS_MAX 16
#define NAT_EVENTS_MAX 8192u
#define NAT_FORWARDS_MAX 256
#define NAT_PAIRS_MAX 256
#define NAT_PORTS 65536u
#define NAT_REALMS_MAX 4096u
#define NAT_DATAGRAMS_MAX 4096u /* in fragments, at the same time */
#define NAT_UNSOLICITED_MAX 1024u

/** In the order of `drop_reasons` in onvm-nf.toml. */
enum nat_reason {
	NAT_DROP_MALFORMED,
	NAT_DROP_FRAGMENT,
	NAT_DROP_PROTOCOL,
	NAT_DROP_NO_MAPPING,
	NAT_DROP_FILTERED,
	NAT_DROP_EXHAUSTED,
	NAT_DROP_TABLE_FULL,
	NAT_DROP_NOT_IP,
	NAT_DROP_UNROUTABLE,
	NAT_DROP_SUBSCRIBER_LIMIT,
	NAT_DROP_TOO_BIG,
	NAT_DROP_TTL,
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
	NAT_SESSIONS_EVICTED,
	NAT_FLOWS_REFUSED,
	NAT_ERRORS_SENT,
	NAT_ERRORS_LIMITED,
	NAT_TRANSLATED_64,
	NAT_TRANSLATED_46,
	NAT_EVENTS_LOST,
};

/** What idle time a session has, in the order in which sessions give way. */
enum nat_life {
	NAT_CLOSING, /**< TCP that both sides have finished or one has reset */
	NAT_OPENING, /**< TCP that one side has used */
	NAT_QUERY,   /**< ICMP */
	NAT_UDP_NEW, /**< UDP that was not answered */
	/** the next two beyond the share of their subscriber */
	NAT_SURPLUS_UDP,
	NAT_SURPLUS_TCP,
	NAT_LASTING_UDP,
	NAT_ESTABLISHED,
	NAT_LIVES,
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

/** An external port that leads to an inside endpoint (host order). */
struct nat_forward {
	uint8_t inside[4];
	uint16_t inside_port, port;
	uint8_t protocol;
	uint8_t external; /**< index */
};

/** Addresses that stand for each other. */
struct nat_pair {
	uint8_t inside[4], external[4];
};

struct nat_config {
	uint8_t externals[NAT_EXTERNALS_MAX][4];
	uint32_t nb_externals;
	uint32_t first_port, end_port; /**< the block of each external address */
	uint32_t max_sessions;
	uint32_t subscriber_ports;    /**< most of one inside address, for each protocol */
	uint32_t subscriber_sessions; /**< most of one inside address that do not give way */
	uint32_t nb_inside;	      /**< 0: every address is inside */
	struct nat_network inside[NAT_INSIDE_MAX];
	struct siit_prefix nat64;
	uint32_t nb_nptv6;
	struct nptv6_pair nptv6[NPTV6_PREFIXES_MAX];
	uint32_t nb_forwards;
	struct nat_forward forwards[NAT_FORWARDS_MAX];
	uint32_t nb_pairs;
	struct nat_pair pairs[NAT_PAIRS_MAX];
	uint64_t idle_ns[NAT_LIVES];
	uint64_t port_rest_ns; /**< RFC 6888 REQ-8 */
	uint32_t errors_per_s; /**< ICMP errors of its own; 0: none (RFC 5508 REQ-9) */
	uint64_t key[2];       /**< secret: what ports follow each other */
	uint8_t filtering;     /**< enum nat_filtering */
	uint8_t keeps_port;    /**< while it is free */
	uint8_t keeps_parity;
	uint8_t logs_mappings;
	uint8_t refreshes_inbound; /**< UDP and ICMP; TCP always */
};

/**
 * An inside endpoint: key of a mapping. @p vlan holds two VLAN identifiers; of more, 0xfff and the
 * number of a realm.
 */
struct nat_endpoint {
	uint8_t address[4];
	uint8_t port[2];
	uint8_t protocol;
	/** zero, or of an inherited mapping beside the endpoint's own: its port, 1 */
	uint8_t tag[3];
	uint8_t vlan[3];
	uint8_t pad[3];
};
static_assert(sizeof(struct nat_endpoint) == 16, "looked up in place");

/** A mapping's remote end added: key of a session; of a peer with remote_port 0. */
struct nat_session_key {
	uint8_t inside[4], remote[4];
	uint8_t inside_port[2], remote_port[2];
	uint8_t protocol;
	uint8_t vlan[3];
};
static_assert(sizeof(struct nat_session_key) == 16, "looked up in place");

struct nat_mapping {
	struct nat_endpoint inside; /**< the key again, so that a packet reads one place */
	uint8_t port[2];	    /**< external, network order */
	uint8_t space : 4;	    /**< enum nat_space */
	uint8_t is_forwarded : 4;   /**< it stays, and all may send to it */
	uint8_t external;	    /**< index */
	uint32_t nb_sessions;
	uint64_t freed_ns; /**< when the last of its sessions ended, of those that have */
};

struct nat_session {
	struct onvm_idle_link link; /**< first */
	int32_t mapping;	    /**< slot */
	uint8_t state;		    /**< enum onvm_tcp_track; of UDP and ICMP only who was seen */
	uint8_t life : 4;	    /**< enum nat_life */
	uint8_t external : 4;	    /**< that of the mapping, and its port */
	uint8_t port[2];
};
static_assert(sizeof(struct nat_session) == 32, "two to a cache line");
static_assert(NAT_LIVES <= 16 && NAT_EXTERNALS_MAX <= 16, "they have four bits");

/** An inside address: key of a subscriber. */
struct nat_subscriber {
	uint8_t address[4];
	uint8_t vlan[3];
	uint8_t pad[9];
};
static_assert(sizeof(struct nat_subscriber) == 16, "looked up in place");

struct nat_subscription {
	uint32_t nb_mappings[NAT_SPACES];
	uint32_t nb_lasting; /**< sessions that do not give way */
};

/** What has happened to a mapping. */
struct nat_event {
	uint64_t time_ns;
	uint8_t inside[16]; /**< 4 bytes of it, or all with is_ipv6 */
	uint8_t external[4];
	uint8_t inside_port[2], port[2]; /**< network order */
	uint8_t protocol;
	uint8_t is_ipv6;
	uint8_t is_opened; /**< or closed */
	uint8_t vlan[3];
	uint8_t pad[2];
};
static_assert(sizeof(struct nat_event) == 40, "there are many");

/** A port that rests. */
struct nat_resting {
	uint64_t freed_ns;
	uint32_t port;
	uint32_t pad;
};

/** Ports of one protocol of one external address. */
struct nat_ports {
	uint32_t nb_used; /**< of the block, with those that rest */
	uint32_t first_resting, nb_resting;
	struct nat_resting *resting; /**< a ring of NAT_PORTS, in the order of freed_ns */
	uint64_t used[NAT_PORTS / 64];
	int32_t mapping_of[NAT_PORTS]; /**< by port; below 0: none */
};

struct nat {
	struct nat_config config;
	struct onvm_flow_table *mappings, *sessions;
	struct onvm_flow_table *subscribers;
	uint32_t max_subscribers;
	struct onvm_flow_table *realms;	   /**< identifiers of up to 4 VLANs -> a number */
	struct onvm_flow_table *datagrams; /**< whose first fragment was translated */
	struct onvm_flow_table *peers;	   /**< sessions per remote address; only to filter by it */
	struct onvm_idle_queue queues[NAT_LIVES];
	bool is_routed; /**< a router behind the NAT takes hairpinned packets */
	bool is_tagged; /**< the router takes VLAN tags off, so that no frame can be answered later */
	uint32_t mtu;	/**< that packets must fit through; 0: not known, or the router's matter */
	uint32_t frame_max; /**< a frame that is no longer fits */
	uint32_t link_mtu;  /**< likewise, of what changes its IP version, also with a router */
	struct onvm_flow_table *hosts;	     /**< of IPv6; NULL without NAT64 */
	uint16_t identification;	     /**< of the next IPv4 packet that others may cut */
	uint64_t errors_due_ns;		     /**< when the bucket of errors is full again */
	struct nat_unsolicited *unsolicited; /**< a ring of NAT_UNSOLICITED_MAX, in their order */
	uint32_t first_unsolicited, nb_unsolicited;
	struct onvm_flow_table *pairs; /**< one-to-one; NULL: there are none */
	struct nat_event *events;      /**< in their order; NULL: they are not logged */
	uint32_t nb_events;
	uint64_t now_ns;   /**< of the burst in work */
	bool has_detours;  /**< there may be stand-ins or pairs to look at behind the translation */
	bool handles_ipv6; /**< there is NAT64 or NPTv6 */
	bool has_backlog;  /**< more has expired than one burst forgot */
	bool has_pending;  /**< there are pending counters */
	uint64_t *counters; /**< the running burst's, or pending_counters */
	uint64_t pending_counters[ONVM_COUNTERS_MAX]; /**< what happened between bursts */
	uint32_t nb_inherited;			      /**< mappings of ports outside the block */
	struct nat_ports (*ports)[NAT_SPACES];	      /**< by external address */
};

struct nat *nat_create(const struct nat_config *config);
void nat_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void nat_free(struct nat *nat);
/** Whether a router stands behind the NAT, so that hairpinned packets go on to it. */
void nat_set_routed(struct nat *nat, bool is_routed, bool is_tagged);
/**
 * What packets must fit through; 0: anything.
 *
 * @param mtu       of those that keep their IP version
 * @param link_mtu  of those that change it
 */
void nat_set_mtu(struct nat *nat, uint32_t mtu, uint32_t link_mtu);

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

/** Index of an external address; below 0: it is none. */
static inline int32_t
nat_external_find(const struct nat *nat, const uint8_t *address)
{
	for (uint32_t i = 0; i < nat->config.nb_externals; i++)
		if (memcmp(nat->config.externals[i], address, 4) == 0)
			return (int32_t)i;
	return -1;
}

/** Slot of a session that lives, or below 0. */
int32_t nat_session_find(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns);
bool nat_session_has_expired(struct nat *nat, int32_t slot, uint64_t now_ns);
/**
 * Session of @p key, made together with its mapping if need be.
 *
 * @return its slot, or -reason - 1 (enum nat_reason)
 */
int32_t nat_session_open(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns);
/** Note a packet of the session: state and timer. */
void nat_session_use(struct nat *nat, int32_t slot, uint8_t protocol, uint8_t tcp_flags,
		     bool is_inbound, uint64_t now_ns);
/** End a session, and its mapping with its last one. @p freed_ns: when the port was used last. */
void nat_session_close(struct nat *nat, int32_t slot, uint64_t freed_ns);
/** Forget at most @p budget sessions whose time is over, and mappings with their last one. */
void nat_expire(struct nat *nat, uint64_t now_ns, uint32_t budget);
/** nat_expire() between bursts. */
void nat_tick(struct nat *nat, uint64_t now_ns);
/** No mapping is left whose sessions have all expired. To call before one without session counts. */
static inline void
nat_backlog_clear(struct nat *nat, uint64_t now_ns)
{
	if (nat->has_backlog)
		nat_expire(nat, now_ns, UINT32_MAX);
}

/** Whether a remote end may send to the mapping of @p key; @p session: slot of @p key, or below 0. */
bool nat_filter_allows(struct nat *nat, const struct nat_session_key *key, int32_t session);

/** Slot of the mapping of an inside endpoint, or below 0. */
int32_t nat_mapping_find(struct nat *nat, const struct nat_session_key *session);
/** Where the slot of the mapping of an external port (network order) is. */
static inline const int32_t *
nat_mapping_place(const struct nat *nat, uint32_t external, enum nat_space space,
		  const uint8_t *port)
{
	return &nat->ports[external][space].mapping_of[onvm_load_be16(port)];
}

/** Inside endpoint behind an external port (network order) in a VLAN, or NULL. */
static inline const struct nat_endpoint *
nat_endpoint_behind(struct nat *nat, uint32_t external, enum nat_space space, const uint8_t *port,
		    const uint8_t *vlan)
{
	const int32_t slot = *nat_mapping_place(nat, external, space, port);
	const struct nat_mapping *mapping;

	if (slot < 0)
		return NULL;
	mapping = onvm_flow_value(nat->mappings, slot);
	return memcmp(mapping->inside.vlan, vlan, 3) != 0 ? NULL : &mapping->inside;
}

/** A mapping of @p endpoint to a port that nothing uses; its slot, or below 0. */
int32_t nat_mapping_add(struct nat *nat, const struct nat_endpoint *endpoint, uint32_t external,
			uint32_t port);
/** Make the mappings of the forwarded ports of the block. @return 0 or -errno */
int nat_forwards_add(struct nat *nat);
/** Close a mapping without sessions, unless it is forwarded. @p rests: whether its port has been used. */
void nat_mapping_release(struct nat *nat, int32_t slot, bool rests);
/** A session of a mapping, with its timer; the slot, or below 0 when the table is full. */
int32_t nat_session_add(struct nat *nat, const struct nat_session_key *key, int32_t mapping,
			uint8_t state, uint64_t now_ns);
/** Fill in the VLANs of a key; false: there are too many different ones. */
bool nat_vlan_fill(struct nat *nat, const struct onvm_headers *headers, uint8_t *vlan);
/** The external address of an inside address (RFC 4787 REQ-2). */
uint32_t nat_external_of(const struct nat *nat, const uint8_t *address, const uint8_t *vlan);

/* ---- port.c ---- */

static inline bool
nat_port_is_own(const struct nat *nat, uint32_t port)
{
	return port >= nat->config.first_port && port < nat->config.end_port;
}

/** A port for @p endpoint that nothing uses, or -1. It is used from then on. */
int32_t nat_port_take(struct nat *nat, uint32_t external, enum nat_space space,
		      const struct nat_endpoint *endpoint, uint64_t now_ns);
/** Use a given port. */
void nat_port_use(struct nat *nat, uint32_t external, enum nat_space space, uint32_t port);
/** @p freed_ns: when it was used last; it rests from then on. 0: it was not. */
void nat_port_give_back(struct nat *nat, uint32_t external, enum nat_space space, uint32_t port,
			uint64_t freed_ns);

/* ---- handover.c ---- */

/** A session as it is saved. */
struct nat_saved {
	struct nat_session_key key;
	uint8_t external[4];
	uint8_t port[2]; /**< external, network order */
	uint8_t state;
	uint8_t pad;
	uint64_t age_ns; /**< since it was used */
};
static_assert(sizeof(struct nat_saved) == 32, "it lies in snapshots");

/** A host of IPv6 as it is saved, in front of the sessions; these name its stand-in. */
struct nat_saved_host {
	uint8_t stand_in[4];
	uint8_t first_half[8]; /**< of its address */
	uint8_t protocol;      /**< where that of a session is: none has 41, IPv6 in IPv4 */
	uint8_t vlan[3];
	uint8_t pad[8];
	uint8_t second_half[8];
};
static_assert(sizeof(struct nat_saved_host) == sizeof(struct nat_saved), "they lie in one array");

uint32_t nat_nb_sessions(const struct nat *nat);
void nat_session_save(struct nat *nat, int32_t slot, struct nat_saved *saved, uint64_t now_ns);
/** Sessions and hosts of IPv6 to save. */
uint32_t nat_nb_saved(const struct nat *nat);
/** Save up to @p nb of them; @return how many. */
uint32_t nat_save(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint64_t now_ns);
/**
 * Take sessions over, with their external ports. Their stand-ins become those of their hosts here.
 *
 * @return 0, or nothing has changed: -ENOSPC without room for them, -EEXIST when one of their ports
 *         is another endpoint's here, -EINVAL when they are not what nat_save() gives
 */
int nat_restore(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint64_t now_ns);
/**
 * Leave out what the configuration of @p nat does not allow: sessions of other external or inside
 * addresses, and those of external ports outside [@p first, @p end).
 *
 * @param keeps_hosts  false: leave out those of IPv6 hosts, too
 * @return how many are left, in their order
 */
uint32_t nat_allowed(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint32_t first,
		     uint32_t end, bool keeps_hosts);
/** Mappings of ports outside this instance's block. */
uint32_t nat_nb_inherited(const struct nat *nat);

/* ---- list.c ---- */

/**
 * Save up to @p nb sessions that have not expired, from slot @p at on, to show them.
 *
 * @param at  gets where to go on; below 0: there are no more
 * @return how many
 */
uint32_t nat_list_sessions(struct nat *nat, int32_t *at, struct nat_saved *saved, uint32_t nb,
			   uint64_t now_ns);
/** The same for mappings. */
uint32_t nat_list_mappings(struct nat *nat, int32_t *at, struct nat_mapping *mappings, uint32_t nb);
/** End a session; whether there was one. */
bool nat_kill_session(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns);
/** End all sessions of a mapping, and it; whether there was one. It walks over all sessions. */
bool nat_kill_mapping(struct nat *nat, const struct nat_endpoint *inside, uint64_t now_ns);

/** Whether an address is one of those that are translated. */
static inline bool
nat_is_inside(const struct nat_config *config, const uint8_t *address)
{
	const uint32_t value = onvm_load_be32(address);

	for (uint32_t i = 0; i < config->nb_inside; i++)
		if ((value & config->inside[i].mask) == config->inside[i].address)
			return true;
	return config->nb_inside == 0;
}

/* ---- fragment.c ---- */

struct onvm_flow_table *nat_fragment_table_create(void);
/**
 * Remember what became of a first fragment, for those behind it.
 *
 * @param data  the frame as it leaves
 * @param ends  its source and its destination as they came in
 */
void nat_fragment_note(struct nat *nat, const uint8_t *data, const struct onvm_headers *headers,
		       const uint8_t *ends, bool is_inbound, uint64_t now_ns);
/** Translate a later fragment; false: its first fragment was not translated. */
bool nat_fragment_translate(struct nat *nat, uint8_t *data, const struct onvm_headers *headers,
			    bool is_inbound, uint64_t now_ns);

/* ---- error.c ---- */

/** Types of ICMP queries (RFC 792, RFC 950, RFC 8335), and of their replies. */
static inline bool
nat_icmp_is_query(uint8_t type)
{
	return type == 8 || type == 13 || type == 15 || type == 17 || type == 42;
}

static inline bool
nat_icmp_is_reply(uint8_t type)
{
	return type == 0 || type == 14 || type == 16 || type == 18 || type == 43;
}

/** Translate an ICMP error on its way out; the reason to drop it, or NAT_NO_DROP. */
enum nat_reason
nat_error_out(struct nat *nat, uint8_t *data, const struct onvm_headers *headers, uint64_t now_ns);
/** The same on its way in. */
enum nat_reason
nat_error_in(struct nat *nat, uint8_t *data, const struct onvm_headers *headers, uint64_t now_ns);

/* ---- own_error.c ---- */

/** What the NAT itself has to say (RFC 792). */
enum nat_own_error {
	NAT_ERROR_PORT_UNREACHABLE,
	NAT_ERROR_TOO_BIG,
	NAT_ERROR_PROHIBITED, /**< administratively (RFC 1812) */
	NAT_ERROR_TTL,
};

/** A packet that an error is about, as it came in. */
struct nat_offender {
	const uint8_t *data;
	struct onvm_headers headers;
	uint16_t port;
};

/**
 * Make a packet the error about itself; its MAC addresses stay.
 *
 * @param source  4 bytes: whom the error comes from
 * @return false: nothing may be said about it, or too much has been; nothing has changed
 */
bool nat_own_error_become(struct nat *nat, struct onvm_pkt *pkt, const struct onvm_headers *headers,
			  const uint8_t *source, enum nat_own_error error, uint32_t mtu,
			  uint64_t now_ns);
/** Send an error about a packet by the port that it came in by; NULL: none may be sent. */
struct onvm_pkt *
nat_own_error_send(struct nat *nat, struct onvm_ctx *ctx, const struct nat_offender *about,
		   const uint8_t *source, enum nat_own_error error, uint32_t mtu);
/** Bytes of the IP packet on the wire; of a merged one, of the longest that it is cut into. */
uint32_t nat_sent_bytes(const struct onvm_pkt *pkt, const struct onvm_headers *headers);

/**
 * Let a packet from inside go to a host inside: on to the router of the chain, or back to that which
 * it came from; either knows where that host is.
 */
static inline void
nat_send_inside(const struct nat *nat, struct onvm_pkt *pkt)
{
	uint8_t router[6];

	if (nat->is_routed)
		return;
	memcpy(router, pkt->data + 6, sizeof(router));
	memcpy(pkt->data + 6, pkt->data, sizeof(router));
	memcpy(pkt->data, router, sizeof(router));
	onvm_pkt_out(pkt, pkt->port);
}

/** RFC 1122 3.2.1.3: this network, loopback, multicast, broadcast: no end of a session. */
static inline bool
nat_is_no_host(const uint8_t *address)
{
	return address[0] == 0 || address[0] == 127 || (address[0] & 0xf0) == 224 ||
	       onvm_load_be32(address) == UINT32_MAX;
}

/* ---- one_to_one.c ---- */

/** @return 0 or -errno */
int nat_one_to_one_create(struct nat *nat);
/** The other address (4 bytes) of the pair that an inside or external address is of, or NULL. */
const uint8_t *nat_one_to_one_find(const struct nat *nat, const uint8_t *address, bool is_external);
/** Why a packet of a pair cannot be translated, or NAT_NO_DROP. */
enum nat_reason nat_one_to_one_refuse(const uint8_t *data, const struct onvm_headers *headers);
/** Replace one end of a packet, and the same address in what an error quotes. */
enum nat_reason nat_one_to_one_translate(uint8_t *data, const struct onvm_headers *headers,
					 enum onvm_side side, const uint8_t *address);

/* ---- log.c ---- */

/** @return 0 or -errno */
int nat_log_create(struct nat *nat);
/** Note what happens to a mapping; only with `events`. */
void nat_log_note(struct nat *nat, const struct nat_mapping *mapping, bool is_opened);
/** Take up to @p nb events, the oldest first; @return how many. */
uint32_t nat_log_take(struct nat *nat, struct nat_event *events, uint32_t nb);

/* ---- host.c ---- */

/** Whether an address stands for an IPv6 host. */
static inline bool
nat_is_stand_in(const uint8_t *address)
{
	return address[0] == 0;
}

static inline bool
nat_is_saved_host(const struct nat_saved *saved)
{
	return saved->key.protocol == 41;
}

/** @return 0 or -errno */
int nat_host_create(struct nat *nat, uint32_t nb_hosts);
/**
 * The stand-in of an IPv6 host.
 *
 * @param makes  make one if there is none; nat_host_hold() and nat_host_release() follow
 * @return false: there is none, or there are too many
 */
bool nat_host_find(struct nat *nat, const uint8_t *address, const uint8_t *vlan, bool makes,
		   uint8_t *stand_in);
/** The IPv6 address (16 bytes) of a stand-in that is in use. */
const uint8_t *nat_host_of(const struct nat *nat, const uint8_t *stand_in);
/** A stand-in stays until it has been released as often as it was held. */
void nat_host_hold(struct nat *nat, const uint8_t *stand_in);
void nat_host_release(struct nat *nat, const uint8_t *stand_in);
/** Save up to @p nb hosts; @return how many. */
uint32_t nat_host_save(struct nat *nat, struct nat_saved *saved, uint32_t nb);
/**
 * Give the @p nb_hosts saved hosts stand-ins here, and the sessions behind them in @p saved, @p nb in
 * all, those. nat_host_restored() follows in any case.
 *
 * @return 0, -ENOSPC without room for them, -EINVAL when a session's host is missing
 */
int nat_host_restore(struct nat *nat, struct nat_saved *saved, uint32_t nb_hosts, uint32_t nb);
/** The sessions of the hosts have been added or not: forget hosts without any. */
void nat_host_restored(struct nat *nat, struct nat_saved *saved, uint32_t nb_hosts);

/* ---- nat64.c ---- */

/** Whether an IPv6 packet goes to an IPv4 host. */
bool nat64_is_outbound(const struct nat *nat, const struct onvm_pkt *pkt,
		       const struct onvm_headers *headers);
/**
 * Make a packet of an IPv6 host one of its stand-in.
 *
 * @param headers  of the packet, before and after
 * @param host     gets the number of the stand-in, which is held, also of a packet that is dropped;
 *                 stays for none
 */
enum nat_reason
nat64_out(struct nat *nat, struct onvm_pkt *pkt, struct onvm_headers *headers, uint32_t *host);
/** Make a packet for a stand-in one for its host. */
enum nat_reason nat64_in(struct nat *nat, struct onvm_ctx *ctx, struct onvm_pkt *pkt);

/* ---- ipv6.c ---- */

/** What an IPv6 packet is. */
enum nat_ipv6 {
	NAT_IPV6_OTHER,	   /**< not the NAT's to translate */
	NAT_IPV6_DROP,	   /**< it goes */
	NAT_IPV6_DONE,	   /**< its prefix has been translated */
	NAT_IPV6_STAND_IN, /**< IPv4 now, from the stand-in of its host */
};

/**
 * Translate an IPv6 packet, as far as that needs no session.
 *
 * @param host    as in nat64_out()
 * @param reason  gets the one to drop it
 */
enum nat_ipv6
nat_ipv6_translate(struct nat *nat, struct onvm_pkt *pkt, struct onvm_headers *headers,
		   uint32_t *host, enum nat_reason *reason);

/* ---- unsolicited.c ---- */

/** NULL without memory; free() frees it. */
struct nat_unsolicited *nat_unsolicited_create(void);
/** Remember an inbound SYN that is dropped, to answer it later. Other packets are ignored. */
void nat_unsolicited_note(struct nat *nat, const struct onvm_pkt *pkt,
			  const struct onvm_headers *headers, uint64_t now_ns);
/** Answer those that have waited for long enough. */
void nat_unsolicited_answer(struct nat *nat, struct onvm_ctx *ctx);

#endif /* _ONVM_NAT_H_ */
