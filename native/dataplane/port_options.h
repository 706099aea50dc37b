/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PORT_OPTIONS_H_
#define _ONVM_PORT_OPTIONS_H_

/**
 * @file
 * Kinds of ports, and what each needs to be opened. The peers' port is in peers/tunnel.h.
 */

#include <stdbool.h>
#include <stdint.h>

/**
 * X(constant, name): a kind has struct onvm_NAME_options below, and is opened by
 * onvm_port_NAME_open().
 */
#define ONVM_PORT_KINDS(X) \
	X(NULL, null)      \
	X(PCAP, pcap)      \
	X(GEN, gen)        \
	X(PACKET, packet)  \
	X(TAP, tap)        \
	X(ETHDEV, ethdev)

enum onvm_port_kind {
#define ONVM_X(constant, name) ONVM_PORT_KIND_##constant,
	ONVM_PORT_KINDS(ONVM_X) ONVM_PORT_NB_KINDS,
#undef ONVM_X
};

struct onvm_null_options {
	uint32_t size;	   /**< bytes of each packet, 64..stride */
	uint32_t nb_flows; /**< 5-tuples it cycles through; 0: 256 templates */
	uint32_t nb_queues;
	uint64_t rate_pps;
	uint64_t count; /**< packets in all; 0: endless */
	bool is_source; /**< gives packets; else it only takes them */
	bool is_random; /**< flows in pseudo-random order instead of one after the other */
};

struct onvm_ethdev_options {
	const char *device; /**< EAL device argument, as in "net_tap0,iface=x" */
	uint32_t nb_queues;
	uint32_t mtu;	 /**< 0: the driver's */
	bool needs_copy; /**< the driver wants mbufs with data behind them: receive by copy */
	bool is_promiscuous;
	int node; /**< of the NIC behind a virtual device; below 0: unknown, or there is none */
};

struct onvm_packet_options {
	const char *interface; /**< an existing one */
	uint32_t nb_queues;
	uint32_t receive_bytes; /**< of each queue's socket */
	bool is_promiscuous;
	int node;	  /**< of the NIC; below 0: unknown, or there is none */
	bool skips_qdisc; /**< frames go to the driver past the traffic control of the host */
};

struct onvm_tap_options {
	const char *interface; /**< one that is made */
	uint32_t nb_queues;
	uint32_t mtu; /**< 0: the kernel's default */
};

struct onvm_pcap_options {
	const char *rx_path; /**< capture to read, "-": standard input, or NULL */
	const char *tx_path; /**< capture to write, "-": standard output, or NULL */
	uint32_t loop;	     /**< times to read it; 0: forever */
	uint64_t rate_pps;
	uint64_t count;
	double speed;	 /**< times the pace of the capture; 0: it does not count */
	bool may_be_cut; /**< a capture that ends within a record is whole */
	bool is_pcapng;	 /**< what is written */
	bool is_gzip;
};

/** Options of a generator (ports/generator/client.h). */
struct onvm_gen_options {
	uint32_t is_server; /**< answers what arrives; the other fields but rate do not count */
	uint32_t nb_flows;  /**< connections at a time, at least 1 */
	uint64_t rate_pps;  /**< 0: as fast as they are taken */
	uint64_t count;	    /**< packets that the client sends in all; 0: endless */
	uint64_t seed;
	uint32_t ipv6_percent; /**< of connections */
	uint32_t tcp_percent;  /**< of connections */
	uint32_t udp_percent;  /**< of connections, the rest is ICMP echo */
	uint32_t size;	       /**< of frames with data, with frame check sequence; 0: IMIX */
	uint32_t timeout_ms;  /**< after which a silent connection has failed; 0: follows the RTT */
	uint32_t no_answer;   /**< goes on as if answered: for chains without a server */
	uint32_t vip_percent; /**< of IPv4 TCP connections that go to the VIP */
	uint32_t vip_port;
	const char *vip;     /**< IPv4 address, or NULL */
	const char *servers; /**< addresses with commas between, or NULL: of 198.18.0.0/15 */
};

/** The options of a port of any kind. */
union onvm_port_options {
#define ONVM_X(constant, name) struct onvm_##name##_options name;
	ONVM_PORT_KINDS(ONVM_X)
#undef ONVM_X
};

#endif /* _ONVM_PORT_OPTIONS_H_ */
