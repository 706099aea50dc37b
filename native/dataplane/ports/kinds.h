/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PORT_KINDS_H_
#define _ONVM_PORT_KINDS_H_

/**
 * @file
 * Kinds of ports: what each needs to be opened. The peers' port is in peers/tunnel.h.
 */

#include "ports/port.h"

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

struct onvm_pcap_options {
	const char *rx_path; /**< capture to read, or NULL */
	const char *tx_path; /**< capture to write, or NULL */
	uint32_t loop;	     /**< times to read it; 0: for ever */
	uint64_t rate_pps;
	uint64_t count;
};

onvm_port_opener onvm_port_null_open;	/**< struct onvm_null_options */
onvm_port_opener onvm_port_ethdev_open; /**< struct onvm_ethdev_options */
onvm_port_opener onvm_port_pcap_open;	/**< struct onvm_pcap_options */
onvm_port_opener onvm_port_gen_open;	/**< struct onvm_gen_options */
/** Counters of a port that onvm_port_gen_open() made; -EINVAL for another kind. */
int onvm_port_gen_read(const struct onvm_port *port, struct onvm_dp_gen_stats *stats);

#endif /* _ONVM_PORT_KINDS_H_ */
