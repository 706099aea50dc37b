/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_H_
#define _ONVM_FIREWALL_H_

/**
 * @file
 * A stateful packet filter: first matching 5-tuple rule, then the default; replies pass.
 *
 * life.c builds the tables from a configuration, burst.c is what happens to packets:
 *
 * 	burst -> sorting (no IP, options) -> tracking (connections, ICMP errors), fragments -> rules
 * 	rules -> ACL, matching (conditional entries) -> limit, set, event; answer
 *
 * The list of rules has no jumps. Entries that decide by addresses, protocol and ports alone lie in an
 * ACL (rules.c). The others are conditional: matching.c finds those that match by the same fields with
 * one bit for each, and asks the rest of their conditions in order, up to the first match of the ACL.
 *
 * connection.c keeps the table of connections and tcp.c the states of those of TCP, handover.c saves
 * connections and takes them over.
 * The configuration says whether connections are kept at all.
 *
 * Life: firewall_create() once, firewall_burst() for every burst, firewall_free() at the end.
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/nf.h>
#include <onvm/tables.h>

/** In the order of `drop_reasons` in onvm-nf.toml. */
enum firewall_reason {
	FIREWALL_DROP_RULE,
	FIREWALL_DROP_DEFAULT,
	FIREWALL_DROP_MALFORMED,
	FIREWALL_DROP_FRAGMENT,
	FIREWALL_DROP_NON_IP,
	FIREWALL_DROP_TABLE_FULL,
	FIREWALL_DROP_INVALID,
	FIREWALL_DROP_OPTIONS,
	FIREWALL_DROP_SOURCE_LIMIT,
};

/** In the order of `counters` in onvm-nf.toml. */
enum firewall_counter {
	FIREWALL_BY_RULE, /**< accepted by a rule */
	FIREWALL_BY_DEFAULT,
	FIREWALL_BY_CONNECTION,
	FIREWALL_RELATED, /**< ICMP errors about a connection */
	FIREWALL_CONNECTIONS_OPENED,
	FIREWALL_CONNECTIONS_EXPIRED,
	FIREWALL_REJECTED, /**< packets that were answered */
	FIREWALL_LOGGED,
	FIREWALL_LOGS_LOST, /**< events beyond the rate, or that waited too long */
};

/** What a frame without a readable IP header is. */
enum firewall_kind {
	FIREWALL_KIND_ARP,
	FIREWALL_KIND_VLAN_STACK, /**< more VLAN tags than are read */
	FIREWALL_KIND_LLC,	  /**< a length in place of the EtherType */
	FIREWALL_KIND_PPPOE,
	FIREWALL_KIND_MPLS,
	FIREWALL_KIND_OTHER,
	FIREWALL_KINDS,
};

/** Which way a packet goes through its chain; a rule of side 0 holds for both. */
enum firewall_side {
	FIREWALL_SIDE_ANY,
	FIREWALL_SIDE_NEAR, /**< from the chain's head */
	FIREWALL_SIDE_FAR,  /**< from its other end: ONVM_F_REVERSE */
};

/** What an entry of the list of rules does with a packet that it matches. */
enum firewall_action {
	FIREWALL_ACCEPT,
	FIREWALL_DROP,
	FIREWALL_REJECT,
	FIREWALL_LOG,
	FIREWALL_COUNT,
	FIREWALL_SKIP, /**< go on at another entry */
};

/** What an answer to a rejected packet says; FIREWALL_ANSWER_AUTO: reset or port. */
enum firewall_answer {
	FIREWALL_ANSWER_AUTO,
	FIREWALL_ANSWER_RESET,
	FIREWALL_ANSWER_PORT,
	FIREWALL_ANSWER_HOST,
	FIREWALL_ANSWER_NET,
	FIREWALL_ANSWER_ADMIN,
};

/** Bits of a packet's state, as conditions name them. */
enum firewall_state {
	FIREWALL_NEW = 1,
	FIREWALL_ESTABLISHED = 2,
	FIREWALL_RELATED_STATE = 4,
	FIREWALL_INVALID = 8,
};

/** What a condition asks; matching.c. */
enum firewall_question {
	FIREWALL_ASK_PORT,     /**< a: column of the table of ports */
	FIREWALL_ASK_SET,      /**< a: set, b: 0 source, 1 destination */
	FIREWALL_ASK_FLAGS,    /**< a: first of `pairs` (mask, value), b: how many */
	FIREWALL_ASK_ICMP,     /**< a: first of `pairs` (version * 256 + type, code or 256), b */
	FIREWALL_ASK_STATE,    /**< a: states */
	FIREWALL_ASK_VLAN,     /**< a: first of `pairs` (first, last), b */
	FIREWALL_ASK_MAC,      /**< a: first of `macs`, b: how many */
	FIREWALL_ASK_CAST,     /**< a: bits of 1 unicast, 2 multicast, 4 broadcast */
	FIREWALL_ASK_FRAGMENT, /**< a: 1 later fragments, 0 others */
	FIREWALL_ASK_LIMIT,    /**< a: limit */
};

/** Fields by which conditional entries are found. */
enum firewall_field {
	FIREWALL_FIELD_SRC,
	FIREWALL_FIELD_DST,
	FIREWALL_FIELD_SRC_PORT,
	FIREWALL_FIELD_DST_PORT,
	FIREWALL_FIELD_PROTOCOL,
	FIREWALL_FIELDS,
};

/** One step of the list of rules, jumps replaced by their chains. */
struct firewall_entry {
	uint32_t rule; /**< its number */
	/** position among the conditional entries: next after a skip; of others, the first behind */
	uint32_t next;
	uint32_t first_condition;
	uint16_t nb_conditions;
	uint8_t action;		 /**< enum firewall_action */
	uint8_t answer;		 /**< enum firewall_answer */
	uint8_t side;		 /**< enum firewall_side */
	uint8_t names_transport; /**< it asks for what a later fragment does not show */
	uint8_t takes_invalid;	 /**< what it accepts needs no connection */
	uint8_t is_counted;
};

struct firewall_condition {
	uint32_t a, b;
	uint8_t question; /**< enum firewall_question */
	uint8_t is_negated;
	uint8_t pad[2];
};

/** Numbers of a field that a conditional entry matches, both included; 128 bits. */
struct firewall_span {
	uint64_t first_high, first_low, last_high, last_low;
	uint32_t position; /**< among the conditional entries */
	uint16_t field;	   /**< enum firewall_field */
	uint16_t ip_version;
};

/** Ranges of addresses: sorted, apart from each other. */
struct firewall_set {
	const uint32_t *ranges4; /**< first and last, nb4 times */
	const uint64_t *ranges6; /**< high and low half of the first, then of the last address */
	uint32_t nb4, nb6;
};

/** A token bucket. */
struct firewall_limit {
	uint64_t cost_ns, cap_ns;
	uint8_t per;		  /**< 0 all packets, 1 each source, 2 each destination */
	uint8_t prefix4, prefix6; /**< bits of an address that count */
	uint8_t is_above;	  /**< it matches what finds no token */
	uint8_t pad[4];
};

struct firewall_config {
	const struct onvm_acl_rule *rules4, *rules6; /**< values: position of an entry + 1 */
	const struct firewall_entry *entries;
	const uint32_t *conditional; /**< positions of the conditional entries, in order */
	const struct firewall_span *spans;
	const struct firewall_condition *conditions;
	const uint32_t *pairs;
	const uint8_t *macs; /**< 6 bytes each */
	const struct firewall_set *sets;
	const struct firewall_limit *limits;
	uint32_t nb_rules4, nb_rules6;
	uint32_t nb_entries, nb_conditional, nb_spans, nb_conditions, nb_pairs, nb_macs;
	uint32_t nb_sets, nb_limits;
	uint32_t nb_rules;    /**< as users count them: entries name them by number */
	uint32_t nb_columns;  /**< of the table of ports */
	uint32_t max_limited; /**< ends that limits know */
	uint32_t reject_rate; /**< answers in a second; 0: none */
	uint32_t log_rate;    /**< events in a second */
	uint32_t max_connections;
	uint32_t max_per_source; /**< connections; 0: no limit */
	uint64_t tcp_syn_ns, tcp_syn_received_ns, tcp_established_ns, tcp_transitory_ns;
	uint64_t tcp_closing_ns, udp_ns, udp_unreplied_ns, icmp_ns, other_ns;
	uint8_t default_accepts;
	uint8_t is_stateful;  /**< connections are kept */
	uint8_t is_midstream; /**< a TCP connection may begin with any segment */
	uint8_t is_liberal;   /**< no TCP segment is outside the window */
	uint8_t verifies_checksums;
	uint8_t passes_fragments; /**< later ones that rules and first fragments leave open */
	uint8_t passes_ip_options;
	uint8_t passes_source_route;
	uint8_t answers_behind; /**< also what another NF of the chain has had before */
	uint8_t passes_ndp;	/**< past the rules */
	uint8_t passes_kind[FIREWALL_KINDS];
};

/** The rules as tables; rules.c. */
struct firewall_rules {
	struct onvm_acl *whole[2][2];	  /**< by IPv6 and far side; NULL: no such rules */
	struct onvm_acl *fragments[2][2]; /**< of later fragments, whose ports are not known */
	bool has_sides;			  /**< otherwise both sides share tables */
	bool has_ports;			  /**< otherwise fragments share tables */
	uint32_t nb;			  /**< entries */
	struct firewall_entry *entries;
	uint64_t *hits;		   /**< by a rule's number */
	struct matching *matching; /**< the conditional entries; NULL: there are none */
};

/** What a packet costs that may not come too often. */
struct firewall_bucket {
	uint64_t saved_ns, seen_ns;
};

/** A packet that a rule has logged. */
struct firewall_event {
	uint64_t time_ns;
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint32_t rule;
	uint16_t src_port, dst_port;
	uint16_t port, length, vlan;
	uint8_t ip_version, protocol, tcp_flags, pad;
};

struct firewall {
	struct firewall_config config; /**< the pointers in it are not kept */
	struct firewall_rules rules;
	struct onvm_flow_table *connections; /**< NULL: not tracking */
	struct onvm_flow_table *sources;     /**< connections by source; NULL: no limit */
	struct firewall_bucket answers;
	struct event_ring *events;
};

struct firewall *firewall_create(const struct firewall_config *config);
void firewall_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void firewall_free(struct firewall *firewall);
/** Delete idle connections, a tenth of the table in each call. @return how many */
uint32_t firewall_expire(struct firewall *firewall, uint64_t now_ns);

/**
 * Say what holds for the ports of the manager.
 *
 * @param table  nb_ports rows of nb_columns bytes: 1 where the packets of a port match
 */
int firewall_bind_ports(struct firewall *firewall, const uint8_t *table, uint32_t nb_ports);
/** Take up to @p nb events out of those that wait; @return how many. */
uint32_t firewall_events(struct firewall *firewall, struct firewall_event *events, uint32_t nb);

/* ---- handover.c ---- */

struct firewall_saved;
struct connection_key;

/** Connections; 0 when none are tracked. */
uint32_t firewall_nb_connections(const struct firewall *firewall);
/** Save up to @p nb connections; @return how many. */
uint32_t firewall_save(struct firewall *firewall, struct firewall_saved *saved, uint32_t nb,
		       uint64_t now_ns);
/**
 * Save up to @p nb connections that are not idle, from slot @p at on, to show them.
 *
 * @param at  gets where to go on; below 0: there are no more
 * @return how many
 */
uint32_t firewall_list(struct firewall *firewall, int32_t *at, struct firewall_saved *saved,
		       uint32_t nb, uint64_t now_ns);
/** Forget a connection; whether there was one. */
bool firewall_kill(struct firewall *firewall, const struct connection_key *key);
/** Take connections over. @return 0, or -ENOSPC without room for them: then nothing has changed. */
int firewall_restore(struct firewall *firewall, const struct firewall_saved *saved, uint32_t nb,
		     uint64_t now_ns);

#endif /* _ONVM_FIREWALL_H_ */
