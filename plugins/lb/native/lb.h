/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_LB_H_
#define _ONVM_LB_H_

/**
 * @file
 * A layer-4 load balancer: Maglev hashing with a connection table.
 *
 * The first packet of a connection to a VIP takes its backend from the VIP's lookup table
 * (Eisenbud et al., "Maglev", NSDI 2016, section 3.4); the connection table keeps it there. The
 * destination becomes the backend; on the way back the source becomes the VIP again.
 *
 * A connection is two entries of one table, one per direction, each naming the other. That from the
 * client has its state and lies in the queue of its idle time. A table that is full gives up the
 * oldest connection that is closing, opening or UDP. Where two VIPs have the same backend, two
 * connections could differ in nothing that the backend sees; the later one then has another client
 * port towards it.
 *
 * Whether backends are up is decided elsewhere and told by lb_health_set(): other lookup tables for
 * new connections, and what happens to those of a backend that is down. A connection knows its
 * backend by index, for its counters and its state.
 *
 * life.c makes and frees; services.c has VIPs and backends by address; backend.c has what backends
 * are doing; maglev.c fills lookup tables; connection.c keeps connections; burst.c is what happens
 * to packets; forward.c sends them to backends without NAT; error.c translates ICMP errors;
 * answer.c answers for VIPs; handover.c saves connections and takes them over.
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/address.h>
#include <onvm/icmp_error.h>
#include <onvm/idle_queue.h>
#include <onvm/nf.h>
#include <onvm/rewrite.h>
#include <onvm/tables.h>
#include <onvm/tcp_track.h>

/** In the order of `drop_reasons` in onvm-nf.toml. */
enum lb_reason {
	LB_DROP_MALFORMED,
	LB_DROP_FRAGMENT,
	LB_DROP_NO_BACKEND,
	LB_DROP_TABLE_FULL,
	LB_DROP_CONFLICT,
	LB_DROP_NO_SERVICE,
	LB_DROP_NO_CONNECTION,
	LB_DROP_TOO_BIG,
	LB_NO_DROP, /**< not a reason: go on */
};

/** In the order of `counters` in onvm-nf.toml. */
enum lb_counter {
	LB_TO_BACKEND,
	LB_FROM_BACKEND,
	LB_PASSED,
	LB_CONNECTIONS_OPENED,
	LB_CONNECTIONS_EXPIRED,
	LB_CONNECTIONS_EVICTED,
	LB_ICMP_ERRORS,
	LB_ECHOES_ANSWERED,
	LB_REJECTED,
	LB_TOO_BIG_ANSWERED,
};

/** What idle time a connection has, in the order in which connections give way. */
enum lb_life {
	LB_CLOSING, /**< both ends have finished, or one has reset it */
	LB_OPENING, /**< the handshake is not complete, or UDP not answered */
	LB_UDP,
	LB_ESTABLISHED,
	LB_LIVES,
};

/** How packets get to a backend. All but NAT leave the replies to the backend. */
enum lb_forward {
	LB_NAT,
	LB_DSR,	 /**< only the destination's MAC address changes */
	LB_IPIP, /**< RFC 2003, RFC 2473, RFC 4213 */
	LB_GUE,	 /**< IP in UDP: variant 1 of draft-ietf-intarea-gue */
};

struct lb_backend {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t port[2]; /**< network order; 0 keeps the packet's */
	uint8_t ip_version;
	uint8_t has_mac;
	uint8_t mac[6];
	uint8_t pad[6];
};

/** Connections to a backend. */
enum lb_health {
	LB_UP,
	LB_DOWN_KEEP,  /**< get no new ones; those of TCP go on */
	LB_DOWN_RESET, /**< likewise, but the next segment of a client is answered by a reset */
};

#define LB_NO_BACKEND UINT32_MAX /**< index of the backend of a connection that has none */

/** What a backend does; beside lb_backend, with the same index. */
struct lb_usage {
	uint64_t opened;	       /**< connections */
	uint64_t packets[2], bytes[2]; /**< to it, from it */
	uint64_t failing_ns;	       /**< when the first of its failures in a row was */
	uint32_t current;	       /**< connections */
	uint32_t nb_failures;	       /**< in a row, not older than the VIP's window */
	uint8_t health;		       /**< enum lb_health */
	uint8_t is_failing;	       /**< it has failed as often as the VIP bears */
	uint8_t pad[6];
};
static_assert(sizeof(struct lb_usage) == 64, "a packet writes one cache line");

struct lb_vip {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t ip_version;
	uint8_t protocol;
	uint8_t port[2];   /**< network order; 0: any */
	uint8_t by_client; /**< hash the client's address only */
	uint8_t forward;   /**< enum lb_forward */
	uint8_t pad[2];
	uint32_t failures; /**< in a row that a backend may have less one; 0: none are noticed */
	uint64_t window_ns;
	uint32_t first_backend; /**< in the array of all backends */
	uint32_t nb_backends;
	uint32_t table_size;
	/** table_size entries, each below nb_backends; kept by the caller. NULL: nothing new */
	const uint32_t *table;
};

struct lb_config {
	const struct lb_vip *vips;
	const struct lb_backend *backends;
	uint32_t nb_vips, nb_backends;
	uint32_t max_connections;
	uint64_t idle_ns[LB_LIVES];
	uint8_t rejects; /**< answer what is for no service of a VIP */
	uint8_t gue_port[2];
	uint16_t tunnel_mtu; /**< bytes of an IP packet that gets to a backend */
	/** outer sources of IPv4 and IPv6 */
	uint8_t tunnel_source4[ONVM_ADDRESS_BYTES], tunnel_source6[ONVM_ADDRESS_BYTES];
};

/** A packet's 5-tuple and VLANs as it comes; key of the connection table. */
struct lb_key {
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint8_t src_port[2], dst_port[2];
	uint8_t protocol, ip_version;
	uint8_t pad[2];
	uint16_t vlans[ONVM_VLANS_MAX]; /**< identifiers, outermost first; 0: none */
};
static_assert(sizeof(struct lb_key) == 48, "looked up in place");

enum lb_state {
	LB_SEEN = 1,	   /**< a packet of the client; << 1: of the backend */
	LB_FIN = 4,	   /**< likewise */
	LB_RST = 16,	   /**< the last segment was a reset */
	LB_HANDSHAKE = 32, /**< it began with a SYN, and the client has not proven to be there */
};

/** One direction of a connection. */
struct lb_entry {
	struct onvm_idle_link link;	     /**< first; of the entry from the client */
	uint8_t address[ONVM_ADDRESS_BYTES]; /**< what the end that changes becomes */
	uint8_t port[2];
	uint8_t client_port[2]; /**< what the client's becomes */
	int32_t partner;	/**< slot of the other direction */
	uint8_t is_reply;	/**< from the backend: the source changes */
	/* of the entry from the client */
	uint8_t state;	   /**< enum lb_state */
	uint8_t life;	   /**< enum lb_life */
	uint8_t is_orphan; /**< its backend was removed */
	uint32_t number;   /**< of the backend's SYN */
	/** of both entries: packets stay as they are, for they are for the server itself or forwarded
	 * otherwise than by NAT */
	uint8_t is_direct;
	uint8_t forward;       /**< of both: enum lb_forward. From the client: to `address` */
	uint8_t outer_version; /**< IP version of `address` then */
	uint8_t pad;
	uint32_t backend; /**< of both entries: index, or LB_NO_BACKEND */
};
static_assert(sizeof(struct lb_entry) == 64, "value size");

/** Key of VIPs (protocol and port 0: the address alone) and of servers. */
struct lb_vip_key {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t port[2];
	uint8_t protocol, ip_version;
	uint8_t pad[12];
};
static_assert(sizeof(struct lb_vip_key) == 32, "looked up in place");

struct lb {
	struct lb_config config;      /**< the arrays it points to are copies */
	struct onvm_flow_table *vips; /**< lb_vip_key -> index into config.vips */
	/** lb_vip_key of a server -> index of its only VIP, or LB_AMBIGUOUS */
	struct onvm_flow_table *servers;
	struct onvm_flow_table *connections;
	struct lb_usage *usages; /**< of config.backends */
	uint32_t nb_failing;	 /**< of them */
	struct onvm_idle_queue queues[LB_LIVES];
	uint64_t *counters; /**< the running burst's, or pending_counters */
	uint64_t pending_counters[ONVM_COUNTERS_MAX]; /**< what happened between bursts */
	bool has_pending;
};

struct lb *lb_create(const struct lb_config *config);
/**
 * Replace VIPs and backends, and what is to be answered. Connections stay where they are, but those
 * of UDP to removed backends end. 0 or -errno, then nothing changed.
 */
int lb_update(struct lb *lb, const struct lb_config *config);
void lb_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void lb_free(struct lb *lb);

/* ---- services.c ---- */

#define LB_AMBIGUOUS UINT32_MAX

int lb_services_check(const struct lb_config *config);
/** Fill the tables of VIPs and servers of @p lb, which has them not yet; 0 or -errno. */
int lb_services_fill(struct lb *lb);
/** VIP of an end; NULL: it is none. @p protocol 0: of the address alone. */
const struct lb_vip *lb_vip_find(const struct lb *lb, uint8_t ip_version, const uint8_t *address,
				 uint8_t protocol, const uint8_t *port);
bool lb_is_vip(const struct lb *lb, uint8_t ip_version, const uint8_t *address);
/** The only VIP for which a server speaks from this end, or NULL. */
const struct lb_vip *lb_vip_of_server(const struct lb *lb, const struct lb_key *key);
/** Whether a VIP has a server at the packet's destination. */
bool lb_is_for_server(const struct lb *lb, const struct lb_key *key);
/**
 * Find the backend of each connection again. Those whose backend is no longer one of their VIP's
 * become orphans, or end if they are of UDP. -ENOMEM: nothing has changed.
 *
 * @param moved  the index that each former backend has now, or LB_NO_BACKEND, if the VIPs are the
 *               same; NULL: all are looked up
 */
int lb_backends_assign(struct lb *lb, const uint32_t *moved);

/* ---- backend.c ---- */

/**
 * Replace what chooses the backends of new connections, and say which backends are down.
 *
 * @param tables   for each VIP what lb_vip.table is; kept by the caller
 * @param healths  for each backend one of enum lb_health
 */
void lb_health_set(struct lb *lb, const uint32_t *const *tables, const uint8_t *healths);
/** Give the indices of at most @p nb backends that have failed too often, once. */
uint32_t lb_failing_take(struct lb *lb, uint32_t *indices, uint32_t nb);
/**
 * Let backends of @p lb go on counting where the same ones of @p before were.
 *
 * @param moved  for each of @p before, gets its index in @p lb or LB_NO_BACKEND
 * @return 0 or -ENOMEM
 */
int lb_usages_inherit(struct lb *lb, const struct lb *before, uint32_t *moved);
/** Notice whether a backend answers those who open connections; before lb_connection_use(). */
void lb_failures_note(struct lb *lb, const struct lb_key *key, const struct lb_entry *used,
		      uint8_t tcp_flags, uint64_t now_ns);

/* ---- connection.c ---- */

/** Slot of the entry of @p key, or below 0; one that has expired goes. */
int32_t lb_connection_find(struct lb *lb, const struct lb_key *key, uint64_t now_ns);
/** Whether a connection, by the slot of either entry, has been idle for its time. */
bool lb_connection_has_expired(struct lb *lb, int32_t slot, uint64_t now_ns);
/** The entry from the client of a connection, by the slot of either entry. */
struct lb_entry *lb_connection_first(struct lb *lb, int32_t slot);
/**
 * A new connection to a backend of @p vip.
 *
 * @return slot of its entry from the client, or -reason - 1 (enum lb_reason)
 */
int32_t lb_connection_open(struct lb *lb, const struct lb_vip *vip, const struct lb_key *key,
			   bool is_handshake, uint64_t now_ns);
/**
 * A connection to a server itself, which stays as it is: so that its replies are not taken for those
 * of a VIP. Its slot, or below 0 if it cannot be told apart or there is no room.
 */
int32_t lb_connection_open_direct(struct lb *lb, const struct lb_key *key, bool is_handshake,
				  uint64_t now_ns);
/** Entries of both directions; the slot of that from the client, or below 0 without room. */
int32_t lb_connection_add(struct lb *lb, const struct lb_key *key, const struct lb_key *reply,
			  uint32_t backend, uint8_t state, uint64_t now_ns);
/** Let a connection, by the slot of its entry from the client, go to a backend without NAT. */
void lb_connection_set_forward(struct lb *lb, int32_t slot, uint8_t forward, const uint8_t *address,
			       uint8_t outer_version);
void lb_connection_close(struct lb *lb, int32_t slot);
/** Note a packet of the connection: state and timer. */
void lb_connection_use(struct lb *lb, int32_t slot, const uint8_t *data,
		       const struct onvm_headers *headers, uint64_t now_ns);
/** Forget at most @p budget connections whose time is over. */
void lb_expire(struct lb *lb, uint64_t now_ns, uint32_t budget);
/** lb_expire() between bursts. */
void lb_tick(struct lb *lb, uint64_t now_ns);

/* ---- error.c ---- */

/** Translate an ICMP error; the reason to drop it, or LB_NO_DROP. */
enum lb_reason lb_error(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
			const uint16_t *vlans, bool is_vip, uint64_t now_ns);

/* ---- forward.c ---- */

/** Send a packet of a client to its backend as the VIP says; the reason to drop it, or LB_NO_DROP. */
enum lb_reason lb_forward(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
			  const struct lb_entry *entry, uint64_t hash);

/* ---- answer.c ---- */

/** Answer an echo request for a VIP, by the port it came from; false: it must be dropped. */
bool lb_answer_echo(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers);
/** Tell a sender the MTU towards a backend; false: the packet must be dropped. */
bool
lb_too_big(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers, uint16_t mtu);
/** Answer a segment by a reset; false: it must be dropped. */
bool lb_reset(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers);
/** Answer TCP or UDP for no service of a VIP, if that is wished; false: it must be dropped. */
bool lb_reject(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers);

/* ---- handover.c ---- */

/** A connection as it is saved: both directions' keys. */
struct lb_saved {
	struct lb_key key, reply;
	uint8_t state;
	uint8_t forward, outer_version;
	uint8_t pad;
	uint32_t number;
	uint64_t age_ns;		     /**< since it was used */
	uint8_t address[ONVM_ADDRESS_BYTES]; /**< of the backend */
};
static_assert(sizeof(struct lb_saved) == 128, "it lies in snapshots");

uint32_t lb_nb_connections(const struct lb *lb);
/** Save up to @p nb connections; @return how many. */
uint32_t lb_save(struct lb *lb, struct lb_saved *saved, uint32_t nb, uint64_t now_ns);
/**
 * Save up to @p nb connections that have not expired, from slot @p at on, to show them.
 *
 * @param at  gets where to go on; below 0: there are no more
 * @return how many
 */
uint32_t lb_list(struct lb *lb, int32_t *at, struct lb_saved *saved, uint32_t nb, uint64_t now_ns);
/** Forget a connection, by the key of its client's packets; whether there was one. */
bool lb_kill(struct lb *lb, const struct lb_key *key);
/** Take connections over. @return 0, or -ENOSPC without room for them: then nothing has changed. */
int lb_restore(struct lb *lb, const struct lb_saved *saved, uint32_t nb, uint64_t now_ns);

/* ---- maglev.c ---- */

/**
 * Fill a Maglev lookup table; permutation j of backend i is (offsets[i] + j * skips[i]) mod size.
 *
 * @param weights  a backend takes part in weight / max(weights) of the turns, and in the first one;
 *                 0: in none
 * @param size     prime, above @p nb
 * @return 0, -EINVAL or -ENOMEM
 */
int lb_maglev_fill(const uint32_t *offsets, const uint32_t *skips, const uint32_t *weights,
		   uint32_t nb, uint32_t size, uint32_t *table);

/** Hash that chooses the slot of a lookup table; model_maglev.py has the same. */
uint64_t lb_hash(const struct lb_key *key, bool by_client);

#endif /* _ONVM_LB_H_ */
