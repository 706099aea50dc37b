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
 * A connection is two entries of one table, one per direction, each naming the other.
 *
 * lb.c makes and frees; maglev.c fills lookup tables; burst.c is what happens to packets;
 * handover.c saves connections and takes them over.
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/address.h>
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
	LB_NO_DROP, /**< not a reason: go on */
};

/** In the order of `counters` in onvm-nf.toml. */
enum lb_counter {
	LB_TO_BACKEND,
	LB_FROM_BACKEND,
	LB_PASSED,
	LB_CONNECTIONS_OPENED,
	LB_CONNECTIONS_EXPIRED,
};

struct lb_backend {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t port[2]; /**< network order; 0 keeps the packet's */
	uint8_t pad[6];
};

struct lb_vip {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t ip_version;
	uint8_t protocol;
	uint8_t port[2];   /**< network order; 0: any */
	uint8_t by_client; /**< hash the client's address only */
	uint8_t pad[3];
	uint32_t first_backend; /**< in the array of all backends */
	uint32_t nb_backends;
	uint32_t table_size;
	const uint32_t
		*table; /**< table_size entries, each below nb_backends; kept by the caller */
};

struct lb_config {
	const struct lb_vip *vips;
	const struct lb_backend *backends;
	uint32_t nb_vips, nb_backends;
	uint32_t max_connections;
	uint64_t tcp_established_ns, tcp_transitory_ns, udp_ns;
};

/** A packet's 5-tuple as it comes; key of the connection table. */
struct lb_key {
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint8_t src_port[2], dst_port[2];
	uint8_t protocol, ip_version;
	uint8_t pad[10];
};
static_assert(sizeof(struct lb_key) == 48, "looked up in place");

/** One direction of a connection. */
struct lb_entry {
	uint8_t address[ONVM_ADDRESS_BYTES]; /**< what the changing end becomes */
	uint8_t port[2];
	uint8_t is_reply;  /**< from the backend: the source changes */
	uint8_t tcp_state; /**< of the entry from the client */
	int32_t partner;   /**< slot of the other direction */
};
static_assert(sizeof(struct lb_entry) == 24, "value size");

/** Key of the VIP table; protocol and port 0: the address alone. */
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
	struct onvm_flow_table *connections;
	uint64_t *counters;
	uint64_t unused_counters[ONVM_COUNTERS_MAX]; /**< counted into before the first burst */
};

struct lb *lb_create(const struct lb_config *config);
/** Replace VIPs and backends; connections stay where they are. 0 or -errno, then nothing changed. */
int lb_update(struct lb *lb, const struct lb_config *config);
void lb_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
void lb_free(struct lb *lb);

/** A connection as it is saved: both directions' keys. */
struct lb_saved {
	struct lb_key key, reply;
	uint8_t tcp_state;
	uint8_t pad[7];
	uint64_t age_ns; /**< since it was used */
};
static_assert(sizeof(struct lb_saved) == 112, "it lies in snapshots");

/** Entries of both directions; the slot of that from the client, or below 0 without room. */
int32_t lb_connection_add(struct lb *lb, const struct lb_key *key, const struct lb_key *reply,
			  uint8_t tcp_state, uint64_t now_ns);
uint32_t lb_nb_connections(const struct lb *lb);
/** Save up to @p nb connections; @return how many. */
uint32_t lb_save(struct lb *lb, struct lb_saved *saved, uint32_t nb, uint64_t now_ns);
/** Take connections over. @return 0, or -ENOSPC without room for them: then nothing has changed. */
int lb_restore(struct lb *lb, const struct lb_saved *saved, uint32_t nb, uint64_t now_ns);

/**
 * Fill a Maglev lookup table; permutation j of backend i is (offsets[i] + j * skips[i]) mod size.
 *
 * @param weights  1..; a backend takes part in weight / max(weights) of the turns
 * @param size     prime, above @p nb
 * @return 0, -EINVAL or -ENOMEM
 */
int lb_maglev_fill(const uint32_t *offsets, const uint32_t *skips, const uint32_t *weights,
		   uint32_t nb, uint32_t size, uint32_t *table);

/** Hash that chooses the slot of a lookup table; model.py has the same. */
uint64_t lb_hash(const struct lb_key *key, bool by_client);

#endif /* _ONVM_LB_H_ */
