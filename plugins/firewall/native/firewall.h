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
 *
 * connection.c keeps the table of connections and tcp.c the states of those of TCP, handover.c saves
 * connections and takes them over.
 * Connections are kept only where they can matter: if neither a rule nor the default drops anything,
 * no table is made.
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

struct firewall_config {
	const struct onvm_acl_rule *rules4, *rules6;
	const uint8_t *accepts; /**< by a rule's value - 1: 1 accepts, 0 drops */
	const uint8_t *sides;	/**< by a rule's value - 1: enum firewall_side; NULL: all of any */
	uint32_t nb_rules4, nb_rules6;
	uint32_t nb_accepts; /**< values are 1..nb_accepts; several rules may share one */
	uint32_t max_connections;
	uint32_t max_per_source; /**< connections; 0: no limit */
	uint64_t tcp_syn_ns, tcp_syn_received_ns, tcp_established_ns, tcp_transitory_ns;
	uint64_t tcp_closing_ns, udp_ns, udp_unreplied_ns, icmp_ns, other_ns;
	uint8_t default_accepts;
	uint8_t is_stateful;
	uint8_t is_midstream; /**< a TCP connection may begin with any segment */
	uint8_t is_liberal;   /**< no TCP segment is outside the window */
	uint8_t verifies_checksums;
	uint8_t passes_fragments; /**< later ones that rules and first fragments leave open */
	uint8_t passes_ip_options;
	uint8_t passes_source_route;
	uint8_t passes_ndp; /**< past the rules */
	uint8_t passes_kind[FIREWALL_KINDS];
};

/** The rules as tables; rules.c. */
struct firewall_rules {
	struct onvm_acl *whole[2][2];	  /**< by IPv6 and far side; NULL: no such rules */
	struct onvm_acl *fragments[2][2]; /**< of later fragments, whose ports are not known */
	bool has_sides;			  /**< otherwise both sides share tables */
	bool has_ports;			  /**< otherwise fragments share tables */
	uint32_t nb;
	uint8_t *accepts;
	uint64_t *hits; /**< by a rule's value - 1 */
};

struct firewall {
	struct firewall_config config; /**< the pointers in it are not kept */
	struct firewall_rules rules;
	struct onvm_flow_table *connections; /**< NULL: not tracking */
	struct onvm_flow_table *sources;     /**< connections by source; NULL: no limit */
	struct onvm_flow_table *datagrams;   /**< verdicts of first fragments */
};

struct firewall *firewall_create(const struct firewall_config *config);
void firewall_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void firewall_free(struct firewall *firewall);
/** Delete idle connections, a tenth of the table in each call. @return how many */
uint32_t firewall_expire(struct firewall *firewall, uint64_t now_ns);

/* ---- handover.c ---- */

struct firewall_saved;

/** Connections; 0 when none are tracked. */
uint32_t firewall_nb_connections(const struct firewall *firewall);
/** Save up to @p nb connections; @return how many. */
uint32_t firewall_save(struct firewall *firewall, struct firewall_saved *saved, uint32_t nb,
		       uint64_t now_ns);
/** Take connections over. @return 0, or -ENOSPC without room for them: then nothing has changed. */
int firewall_restore(struct firewall *firewall, const struct firewall_saved *saved, uint32_t nb,
		     uint64_t now_ns);

#endif /* _ONVM_FIREWALL_H_ */
