/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_H_
#define _ONVM_FIREWALL_H_

/**
 * @file
 * A stateful packet filter: first matching 5-tuple rule, then the default; replies pass.
 *
 * firewall.c builds the tables from a configuration, burst.c is what happens to packets, handover.c
 * saves connections and takes them over.
 * Connections are kept only where they can matter: if nothing but malformed packets can be
 * dropped, no table is made.
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

struct firewall_config {
	const struct onvm_acl_rule *rules4, *rules6;
	const uint8_t *accepts; /**< by a rule's value - 1: 1 accepts, 0 drops */
	uint32_t nb_rules4, nb_rules6;
	uint32_t nb_accepts; /**< values are 1..nb_accepts */
	uint32_t max_connections;
	uint64_t tcp_established_ns, tcp_transitory_ns, udp_ns, icmp_ns, other_ns;
	uint8_t default_accepts;
	uint8_t is_stateful;
	uint8_t passes_fragments; /**< later fragments, which carry no ports */
	uint8_t passes_non_ip;
};

struct firewall {
	struct firewall_config config;	     /**< the pointers in it are not kept */
	struct onvm_acl *acl4, *acl6;	     /**< NULL without rules of that version */
	struct onvm_flow_table *connections; /**< NULL: not tracking */
	uint8_t *accepts;
	uint64_t *hits; /**< by a rule's value - 1 */
};

struct firewall *firewall_create(const struct firewall_config *config);
void firewall_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void firewall_free(struct firewall *firewall);

/** Idle time of a connection. */
uint64_t
firewall_idle_time(const struct firewall_config *config, uint8_t protocol, uint8_t tcp_state);

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
