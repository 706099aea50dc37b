/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ROUTER_H_
#define _ONVM_ROUTER_H_

/**
 * @file
 * A router for IPv4 and IPv6: ARP and NDP, longest prefix match, TTL, ICMP errors, fragments.
 *
 * Theory of operation. A packet *arrives*: its frame must be addressed to the interface, ARP and
 * neighbour discovery are answered, packets to the router's own addresses too, and the TTL falls.
 * Then it is *forwarded*: the route decides interface and next hop, the packet must fit through,
 * and it leaves to the MAC address of its neighbour.
 *
 * A packet arrives where the router is the first NF on its way, and is forwarded where the router
 * is the last one. With the router at both ends of a chain, the NFs between see packets as they
 * came, and may change their destination. An NF that answers a packet by the way it came, with
 * the MAC addresses swapped, reaches its sender.
 *
 * A packet for a neighbour that is not known yet waits as a copy, is counted as the drop
 * `resolving`, and is made again once the neighbour has answered.
 *
 * VLANs. A tag goes where a packet arrives and comes where it leaves, so that the NFs between see
 * none. An interface is a port, or a VLAN of it.
 *
 * Slow path. A port of the host may stand beside an interface, with the same addresses: it gets what
 * is for them and is not answered here, and what it sends leaves by the interface.
 *
 * Changes. All of the setup, and each route, may change between two bursts. An interface that
 * becomes another one forgets its neighbours.
 *
 * From the top down: burst.c calls arrive.c, the first half, and forward.c, the second. delivery.c
 * has packets to the router itself, fragment.c and error.c make others. discovery.c is what
 * neighbours say, neighbour.c what is known of them, waiting.c what waits for them; own.c is what
 * the router says of itself, advertise.c its prefixes; arp.c and ndp.c make messages. route.c and
 * address.c look things up; router.c makes and frees all of it, change.c changes it.
 *
 * Threads: one.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/nf.h>
#include <onvm/parse.h>
#include <onvm/tables.h>

#define ROUTER_INTERFACES_MAX 32
#define ROUTER_ADDRESSES_MAX 256
#define ROUTER_PORTS_MAX 256	   /* port numbers that an interface may have */
#define ROUTER_HOPS_MAX 8	   /* next hops of a route */
#define ROUTER_GROUPS_MAX 65536	   /* sets of next hops, shared by routes */
#define ROUTER_CONFLICTS_MAX 8	   /* conflicts that wait for being logged */
#define ROUTER_FRAME_MAX 9728	   /* bytes of a frame that can wait */
#define ROUTER_WAITING_MAX 2048	   /* packets that wait, in all */
#define ROUTER_WAITING_EACH 512	   /* of these for one neighbour */
#define ROUTER_ORIGINALS 1024	   /* long packets whose beginning is kept, a power of two */
#define ROUTER_ORIGINAL_BYTES 128u /* bytes of it */
#define ROUTER_MAC_BYTES 6u
#define ROUTER_ETHERTYPE_VLAN 0x8100
#define ROUTER_TAG_BYTES 4u
#define ROUTER_CACHED 1024u /* neighbours found without a search, a power of two */
#define ROUTER_FILTER_BITS 1024u
#define ROUTER_NONE UINT32_MAX
#define ROUTER_NO_PORT UINT16_MAX

/** In the order of `drop_reasons` in onvm-nf.toml. */
enum router_reason {
	ROUTER_DROP_MALFORMED,
	ROUTER_DROP_MARTIAN,
	ROUTER_DROP_LOOP,
	ROUTER_DROP_NOT_OURS,
	ROUTER_DROP_NOT_IP,
	ROUTER_DROP_MULTICAST,
	ROUTER_DROP_NO_INTERFACE,
	ROUTER_DROP_TTL,
	ROUTER_DROP_NO_ROUTE,
	ROUTER_DROP_BLACKHOLE,
	ROUTER_DROP_TOO_BIG,
	ROUTER_DROP_FRAGMENTED,
	ROUTER_DROP_RESOLVING,
	ROUTER_DROP_UNRESOLVED,
	ROUTER_DROP_LOCAL,
	ROUTER_DROP_CONSUMED,
	ROUTER_NO_DROP, /**< not a reason */
};

/** In the order of `counters` in onvm-nf.toml. */
enum router_counter {
	ROUTER_FORWARDED,
	ROUTER_ANSWERED_ARP,
	ROUTER_ANSWERED_NDP,
	ROUTER_ANSWERED_ECHO,
	ROUTER_ASKED,
	ROUTER_NEIGHBOURS_FOUND,
	ROUTER_NEIGHBOURS_LOST,
	ROUTER_RELEASED,
	ROUTER_ERRORS_SENT,
	ROUTER_ERRORS_LIMITED,
	ROUTER_FRAGMENTS_MADE,
	ROUTER_MSS_CLAMPED,
	ROUTER_CONFLICTS,
	ROUTER_DEFENDED,
	ROUTER_TO_HOST,
	ROUTER_REVERSE_PATH, /**< dropped as martians */
};

enum router_group_kind {
	ROUTER_CONNECTED,   /**< the destination is on the link of hop 0's interface */
	ROUTER_VIA,	    /**< one of the hops, by flow */
	ROUTER_BLACKHOLE,   /**< dropped without a word */
	ROUTER_UNREACHABLE, /**< dropped, and the sender is told */
	ROUTER_LOCAL,	    /**< an address of the router */
};

/** A next hop. */
struct router_hop {
	uint8_t gateway[ONVM_ADDRESS_BYTES];
	uint8_t interface;
	uint8_t weight; /**< of 255 at most; its share of the flows */
};

/** What a route leads to. */
struct router_group {
	uint8_t kind; /**< enum router_group_kind */
	uint8_t nb_hops;
	struct router_hop hops[ROUTER_HOPS_MAX];
};

/** An address that the router answers ARP or NDP for. */
struct router_address {
	uint8_t bytes[ONVM_ADDRESS_BYTES];
	uint8_t ip_version;
	uint8_t depth; /**< bits of its prefix; 32 or 128: there is no link behind it */
	uint8_t interface;
	bool is_passed; /**< packets to it go on along the chain: another NF has it */
};

/** Where the route back to the source of a packet must lead (RFC 3704). */
enum router_reverse_path {
	ROUTER_REVERSE_OFF,
	ROUTER_REVERSE_STRICT, /**< out of the interface that the packet came by */
	ROUTER_REVERSE_LOOSE,  /**< anywhere */
};

/** What an interface is: a port, or a VLAN of one. */
struct router_link {
	uint8_t mac[ROUTER_MAC_BYTES];
	uint16_t port;
	uint16_t vlan;	    /**< 0: none */
	uint16_t slow_port; /**< leads to the host, or ROUTER_NO_PORT */
	uint16_t mtu;
	uint8_t reverse_path; /**< enum router_reverse_path */
	bool advertises;      /**< its prefixes, to hosts (RFC 4861 6.2) */
};

/** What stays as long as the router. */
struct router_config {
	uint32_t max_routes;
	uint32_t max_neighbours;
};

/** What may change. */
struct router_setup {
	uint32_t nb_interfaces;
	struct router_link links[ROUTER_INTERFACES_MAX];
	uint32_t nb_addresses;
	struct router_address addresses[ROUTER_ADDRESSES_MAX];
	bool clamps_mss;
	uint32_t errors_per_s;
	uint64_t reachable_ns; /**< after that, a neighbour in use is asked again */
	uint64_t forget_ns;    /**< a neighbour unused for so long goes */
};

struct router_interface {
	struct router_link link;
	uint8_t link_local[ONVM_ADDRESS_BYTES];
	uint8_t nb_announcements; /**< still to be sent */
	bool is_probed;		  /**< it has asked whether others have its addresses */
	bool is_solicited;	  /**< a host wants to know the prefixes */
	uint64_t announce_ns;
	uint8_t nb_advertised; /**< of the first ones, which come sooner */
	uint64_t advertise_ns; /**< the next advertisement, unless it is solicited */
	uint64_t advertised_ns;
};

/** Another host has spoken from an address of the router. */
struct router_conflict {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t ip_version;
	uint8_t interface;
	uint8_t mac[ROUTER_MAC_BYTES];
};

enum router_neighbour_state {
	ROUTER_INCOMPLETE, /**< asked, not answered */
	ROUTER_REACHABLE,
	ROUTER_PROBED, /**< used as before, and asked whether it is still there */
	ROUTER_FAILED, /**< has not answered; not asked again for a moment */
};

struct router_neighbour_key {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t ip_version;
	uint8_t interface;
	uint8_t pad[2];
};

struct router_neighbour {
	uint8_t mac[ROUTER_MAC_BYTES];
	uint8_t state; /**< enum router_neighbour_state */
	uint8_t nb_asked;
	uint32_t nb_waiting;
	uint32_t first_waiting;
	uint32_t last_waiting;
	uint64_t confirmed_ns;
	uint64_t asked_ns;
	uint64_t used_ns;
};

/** A packet that waits, for its neighbour or for an empty buffer. */
struct router_waiting {
	uint32_t next;
	uint16_t length;
	uint8_t out_interface;
	uint8_t frame[ROUTER_FRAME_MAX];
};

/** The beginning of a long packet as it arrived; an error about it goes to its sender. */
struct router_original {
	uint32_t buffer;
	uint16_t length;
	uint8_t interface;
	uint8_t frame[ROUTER_ORIGINAL_BYTES];
};

struct router {
	struct router_config config;
	struct router_setup setup;
	struct router_interface interfaces[ROUTER_INTERFACES_MAX];
	uint16_t wire_of[ROUTER_PORTS_MAX];	/**< by slow port, the port that it belongs to */
	uint8_t interface_of[ROUTER_PORTS_MAX]; /**< without a tag; ROUTER_INTERFACES_MAX: none */
	uint16_t mtu_min;			/**< of all interfaces */
	struct onvm_lpm *lpm[2];		/**< IPv4, IPv6; NULL before the first route */
	struct router_group *groups;
	/** A bit for the hash of each own address: most addresses are not the router's. */
	uint64_t own_filter[ROUTER_FILTER_BITS / 64];
	struct onvm_flow_table *neighbours;
	uint32_t nb_incomplete;			    /**< neighbours that have not answered yet */
	uint64_t defended_ns[ROUTER_ADDRESSES_MAX]; /**< by address */
	struct router_conflict conflicts[ROUTER_CONFLICTS_MAX];
	uint32_t nb_conflicts;	       /**< that are not logged */
	int32_t cached[ROUTER_CACHED]; /**< slots of neighbours by the hash of their address */
	struct router_waiting *waiting;
	uint32_t free_waiting;
	uint32_t first_ready, last_ready;   /**< their neighbours have answered */
	uint32_t first_failed, last_failed; /**< their neighbours have not */
	struct router_original *originals;
	uint64_t tick_ns;
	uint64_t errors_ns; /**< time of the error bucket, in which errors are tokens */
	uint64_t errors;
	struct onvm_ctx *ctx; /**< of the burst in work */
};

/* ---- router.c ---- */

/** NULL and errno without memory. */
struct router *router_create(const struct router_config *config);
void router_free(struct router *router);
/** Write a set of next hops. @return 0, -EINVAL */
int router_set_group(struct router *router, uint32_t index, const struct router_group *group);
int router_add_route(struct router *router, uint32_t ip_version, const uint8_t *prefix,
		     uint8_t depth, uint32_t group);
int router_delete_route(struct router *router, uint32_t ip_version, const uint8_t *prefix,
			uint8_t depth);
/** Take a conflict that is not logged yet. @return whether there was one */
bool router_take_conflict(struct router *router, struct router_conflict *conflict);
uint32_t router_nb_neighbours(const struct router *router);
void router_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);

/* ---- change.c ---- */

/** Change interfaces and addresses; new interfaces announce themselves. @return 0, -EINVAL */
int router_change(struct router *router, const struct router_setup *setup);

/* ---- address.c ---- */

/** The address of the router with these bytes; NULL: it is another's. */
const struct router_address *
router_own_address(const struct router *router, uint32_t ip_version, const uint8_t *bytes);
/** The interface of a frame from @p port with the tag @p vlan, 0 for none; or INTERFACES_MAX. */
uint32_t router_interface_of(const struct router *router, uint16_t port, uint16_t vlan);
/**
 * Give the host a frame that it should have, by the slow path of an interface.
 *
 * @return ROUTER_NO_DROP, or @p otherwise if the interface has none
 */
enum router_reason router_to_host(const struct router *router, struct onvm_pkt *pkt,
				  uint32_t interface, enum router_reason otherwise);
/** Send a frame without a tag out of an interface, with its tag. */
void router_out(const struct router *router, struct onvm_pkt *pkt, uint32_t interface);
/** Whether @p address is on the link of an interface. */
bool router_is_on_link(const struct router *router, uint32_t interface, uint32_t ip_version,
		       const uint8_t *address);
/** The address that an interface speaks from to @p target; NULL: it has none. */
const uint8_t *router_source_on(const struct router *router, uint32_t interface,
				uint32_t ip_version, const uint8_t *target);

/* ---- checksum.c ---- */

/** Make the transport checksum of a packet whose flags say that it is partial. */
void router_complete_checksum(uint8_t *data, uint32_t length);

/* ---- arp.c, ndp.c: messages ---- */

#define ROUTER_ARP_BYTES 42
#define ROUTER_ARP_REQUEST 1
#define ROUTER_ARP_REPLY 2

/** Ask for @p target; with @p mac only the neighbour that has it. */
void router_arp_ask(struct router *router, uint32_t interface, const uint8_t *target,
		    const uint8_t *mac);
void router_arp_announce(struct router *router, uint32_t interface, const uint8_t *address);
/** Ask whether another host has an address (RFC 5227 2.1.1). */
void router_arp_probe(struct router *router, uint32_t interface, const uint8_t *address);
/** Whether a frame of at least ROUTER_ARP_BYTES is ARP for IPv4 over Ethernet. */
bool router_is_arp(const uint8_t *data);
/** Turn a request into its answer. */
void router_arp_answer(struct router *router, struct onvm_pkt *pkt, uint32_t interface);
void router_ndp_ask(struct router *router, uint32_t interface, const uint8_t *target,
		    const uint8_t *mac);
void router_ndp_announce(struct router *router, uint32_t interface, const uint8_t *address);
/** Ask whether another host has an address (RFC 4862 5.4.2). */
void router_ndp_probe(struct router *router, uint32_t interface, const uint8_t *address);
/** Turn a solicitation into its answer; @p mac: the asker's, NULL if it has not told it. */
enum router_reason router_ndp_answer(struct router *router, struct onvm_pkt *pkt,
				     uint32_t interface, const uint8_t *mac);

/* ---- advertise.c ---- */

/** Tell hosts the prefixes of an interface, if it is time to (RFC 4861 6.2). */
void router_advertise(struct router *router, uint32_t interface);

/* ---- waiting.c ---- */

/** Copy a packet. @return its number, ROUTER_NONE: there is no room, or it cannot wait */
uint32_t
router_waiting_copy(struct router *router, const struct onvm_pkt *pkt, uint32_t out_interface);
void router_waiting_free(struct router *router, uint32_t index);
void router_queue_append(struct router *router, uint32_t *first, uint32_t *last, uint32_t index);
uint32_t router_queue_take(struct router *router, uint32_t *first);
/** Send packets whose neighbours have answered, as many as there are buffers for. */
void router_release(struct router *router);

/* ---- neighbour.c ---- */

/** What came of a packet that was to go to a neighbour. */
enum router_sent {
	ROUTER_SENT,	 /**< its MAC addresses are set */
	ROUTER_WAITS,	 /**< a copy waits */
	ROUTER_NOT_SENT, /**< too many wait, or there are too many neighbours */
	ROUTER_REFUSED,	 /**< the neighbour does not answer */
};

/** Address a frame to a neighbour, or let a copy wait for it. */
enum router_sent router_address_frame(struct router *router, struct onvm_pkt *pkt,
				      const struct router_hop *hop, uint32_t ip_version);
/**
 * A neighbour has told its MAC address.
 *
 * @param may_add    remember it if it is new
 * @param is_answer  it was asked, so that the way there and back works
 */
void
router_neighbour_learn(struct router *router, uint32_t interface, uint32_t ip_version,
		       const uint8_t *address, const uint8_t *mac, bool may_add, bool is_answer);
/** Ask for a neighbour before there are packets for it, at the next turn. */
void
router_meet(struct router *router, uint32_t interface, uint32_t ip_version, const uint8_t *address);
/** Ask, ask again and forget. */
void router_neighbours_tick(struct router *router);
/** Forget the neighbours of an interface. */
void router_neighbours_forget(struct router *router, uint32_t interface);

/* ---- own.c ---- */

/** Tell neighbours of the router's own addresses, and hosts of prefixes, when it is time to. */
void router_own_tick(struct router *router);
/** Another host speaks from an own address: tell the neighbours otherwise, and log it. */
void router_defend(struct router *router, uint32_t interface, const struct router_address *own,
		   const uint8_t *mac);

/* ---- discovery.c ---- */

enum router_reason
router_arp_arrive(struct router *router, struct onvm_pkt *pkt, uint32_t interface);
/** ROUTER_NO_DROP: it is no neighbour discovery, or has been answered. */
enum router_reason
router_ndp_arrive(struct router *router, struct onvm_pkt *pkt, uint32_t interface);

/* ---- route.c ---- */

/** Both directions of a flow have the same hash, and so has every packet of it. */
uint32_t router_flow_hash(const struct onvm_pkt *pkt);
/** The hop of a group to forward to; @p connected has space for one on the link. */
const struct router_hop *
router_choose_hop(const struct router_group *group, uint32_t ip_version, const uint8_t *address,
		  uint32_t hash, struct router_hop *connected);
/** The group of the route to @p address, or ROUTER_NONE. */
uint32_t router_group_of(const struct router *router, uint32_t ip_version, const uint8_t *address);
/** Whether the route back to the source of a packet leads where it must. */
bool router_comes_right(struct router *router, uint32_t interface, uint32_t ip_version,
			const uint8_t *source);
/** The hop to @p address; NULL: there is none. */
const struct router_hop *
router_hop_to(struct router *router, uint32_t ip_version, const uint8_t *address, uint32_t hash,
	      struct router_hop *connected);

/* ---- error.c ---- */

/** About what an ICMP error is, whichever the version. */
enum router_error {
	ROUTER_ERROR_TTL,
	ROUTER_ERROR_NET_UNREACHABLE,
	ROUTER_ERROR_HOST_UNREACHABLE,
	ROUTER_ERROR_PORT_UNREACHABLE,
	ROUTER_ERROR_TOO_BIG,
};

/**
 * Tell the sender of a packet, unless it must not be told or too many have been.
 *
 * @param interface  where it has just come in, with the MAC addresses it came with: the error goes
 *                   to the sender's; ROUTER_NONE: it is inside, the error takes the route back
 * @param mtu        of the interface that it does not fit through
 */
void router_send_error(struct router *router, const struct onvm_pkt *pkt, enum router_error error,
		       uint32_t interface, uint16_t mtu);
/** Keep the beginning of a long packet as it arrives. */
void router_keep_original(struct router *router, const struct onvm_pkt *pkt, uint32_t interface);

/* ---- fragment.c, delivery.c ---- */

/** Cut an IPv4 packet to @p mtu and send the pieces. */
enum router_reason router_fragment(struct router *router, struct onvm_pkt *pkt,
				   const struct router_hop *hop, uint16_t mtu);
/** A packet to one of the router's own addresses; @p interface as for an error. */
enum router_reason router_receive(struct router *router, struct onvm_pkt *pkt, uint32_t interface);

/* ---- arrive.c, forward.c ---- */

/**
 * A packet from a wire. An answered one stays answered.
 *
 * @return ROUTER_NO_DROP: it is to be forwarded, or has another verdict
 */
enum router_reason router_arrive(struct router *router, struct onvm_pkt *pkt);
/** A packet with the group that its route leads to, or ROUTER_NONE. */
enum router_reason router_forward(struct router *router, struct onvm_pkt *pkt, uint32_t group);

/* ---- what all of them use ---- */

/** A hash of an address, quick and good enough for caches. */
static inline uint32_t
router_hash(uint32_t ip_version, const uint8_t *address)
{
	uint32_t value = onvm_load_be32(address);

	if (ip_version == 6)
		value ^= onvm_load_be32(address + 4) ^ onvm_load_be32(address + 8) * 3 ^
			 onvm_load_be32(address + 12) * 5;
	return value * 0x9e3779b1u >> 16;
}

static inline uint32_t
router_version_of(const uint8_t *data)
{
	return onvm_load_be16(data + 12) == ONVM_ETHERTYPE_IPV4 ? 4 : 6;
}

/** Store the checksum of an IPv4 header. */
static inline void
router_store_ipv4_checksum(uint8_t *ip, uint32_t header_length)
{
	uint16_t sum;

	memset(ip + 10, 0, 2);
	sum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, header_length));
	memcpy(ip + 10, &sum, sizeof(sum));
}

/** Sum of the pseudo-header of an IPv6 packet. */
static inline uint64_t
router_pseudo_sum6(const uint8_t *ip, uint32_t l4_length, uint8_t protocol)
{
	uint8_t rest[8] = {0};

	onvm_store_be32(rest, l4_length);
	rest[7] = protocol;
	return onvm_checksum_add(onvm_checksum_add(0, ip + 8, 32), rest, sizeof(rest));
}

/** Store the checksum of an ICMPv6 message. */
static inline void
router_store_icmp6_checksum(uint8_t *ip, uint32_t l4_length)
{
	uint16_t sum;

	memset(ip + 42, 0, 2);
	sum = (uint16_t)~onvm_checksum_fold(
		onvm_checksum_add(router_pseudo_sum6(ip, l4_length, ONVM_PROTO_ICMPV6), ip + 40,
				  l4_length));
	memcpy(ip + 42, &sum, sizeof(sum));
}

#endif /* _ONVM_ROUTER_H_ */
