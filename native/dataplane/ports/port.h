/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PORT_H_
#define _ONVM_PORT_H_

/**
 * @file
 * Ports: where packets enter and leave the data plane.
 *
 * A kind of port is a table of functions (struct onvm_port_ops) over a private structure: null.c,
 * packet.c, tap.c, ethdev.c (every DPDK driver), pcap/port.c, generator/port.c, and peers/tunnel.c.
 * Workers call the burst functions. Worker q % nb_workers serves receive queue q of a port, and each worker sends on
 * the queue of its own number.
 *
 * Life: the control thread opens and closes ports; closing waits until no worker uses the port.
 * Threads: one worker per queue and direction; the counters of a queue have that one writer.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "dataplane.h"
#include "packet_memory.h"

struct onvm_chain_rules;
struct onvm_port;

/** Packets that the receive function found but could not deliver. */
struct onvm_rx_result {
	uint32_t nb_oversize;  /**< packets larger than a buffer */
	uint32_t nb_foreign;   /**< not of this cluster, or no packet at all */
	uint32_t nb_congested; /**< that the data network wanted dropped (RFC 6040) */
	uint32_t nb_forged;    /**< not genuine */
	uint32_t nb_replayed;  /**< genuine, and here before, or too old to tell */
	uint32_t nb_added;     /**< of those delivered, made here when larger ones were cut */
};

/** Packets that are lost in a port or its device, since it was opened. */
struct onvm_port_losses {
	uint64_t nb_missed;    /**< before the port: its receive queue was full */
	uint64_t nb_no_buffer; /**< before the port: there was no buffer to receive into */
	uint64_t nb_rx_errors; /**< damaged, or of a kind that the port cannot take in */
	uint64_t nb_refused;   /**< taken to be sent, and not sent by the device */
	uint64_t nb_large;     /**< as nb_refused: larger than the device's MTU */
	uint64_t nb_down;      /**< as nb_refused: the device was down */
	uint64_t nb_unwritten; /**< as nb_refused: its file could not be written */
};

struct onvm_port_ops {
	/** Fill @p mbufs with up to @p nb packets; sets is_finished at the end of a finite source. */
	uint16_t (*rx_burst)(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs,
			     uint16_t nb, struct onvm_rx_result *result);
	/** Take up to @p nb packets from the front of @p mbufs; those taken are no longer ours. */
	uint16_t (*tx_burst)(struct onvm_port *port, uint16_t queue, struct rte_mbuf **mbufs,
			     uint16_t nb);
	/** TSC at which the queue has its next packet, 0: at any time. May be NULL. */
	uint64_t (*next_due)(struct onvm_port *port, uint16_t queue);
	/** Say what has been lost, and whether there is no link; set nb_posted. May be NULL. */
	void (*read)(struct onvm_port *port, struct onvm_port_losses *losses, bool *is_down);
	/**
	 * Look whether the device is still the one that was opened (else is_gone), or has come
	 * again: then open it, and return true: wake_fds are to be watched. May be NULL.
	 */
	bool (*revive)(struct onvm_port *port);
	/** Let go of a device that is gone; no worker uses it any more. May be NULL. */
	void (*release)(struct onvm_port *port);
	/** No packet comes or goes any more: what was sent reaches its end now. May be NULL. */
	void (*finish)(struct onvm_port *port);
	void (*close)(struct onvm_port *port);
};

#define ONVM_PORT_FAULT_BYTES 160

enum onvm_port_state {
	ONVM_PORT_CLOSED = 0,
	ONVM_PORT_OPEN = 1,
	ONVM_PORT_CLOSING = 2, /**< no worker begins anything new with it */
};

struct onvm_port {
	uint8_t state;	   /**< atomic: enum onvm_port_state */
	bool can_wait;	   /**< a source that loses nothing when it is read late */
	bool only_answers; /**< only answers packets it was sent: read even while sources are paused */
	bool is_polled;	   /**< must be polled: no event tells that a packet is in */
	bool is_tunnel;	   /**< to the peers: its packets say which path they are on */
	bool takes_offloads; /**< sends partial and merged packets (ports/offload.h) */
	bool has_times;	     /**< what it receives has the time of a capture (packet_time.h) */
	/** atomic: an NF behind it must see packets as they are on the wire */
	uint8_t is_wire_sized;
	uint8_t fragments; /**< atomic: enum onvm_fragments that NFs behind it want */
	/** atomic: no packet will come in again of itself (a generator's server may still answer) */
	uint8_t is_finished;
	uint8_t is_gone;  /**< atomic: its device is being taken away: no packets from or to it */
	bool is_released; /**< and nothing of ours uses the device any more */
	uint16_t id;
	uint16_t nb_queues;
	uint16_t nb_wake_fds;
	int wake_fds[ONVM_WORKERS_MAX]; /**< by queue: readable when packets are in */
	/** atomic: chain in bits 0-15; bit 16: this is the far end, its packets go backwards */
	uint32_t binding;
	struct onvm_chain_rules *rules; /**< atomic: chains of new flows; NULL: the bound one */
	const struct onvm_port_ops *ops;
	void *priv;
	struct onvm_packet_memory *memory;
	/** By receive queue: near the device, or near the worker where there is no device. */
	struct rte_mempool *pools[ONVM_WORKERS_MAX];
	struct onvm_port_losses losses; /**< as last read; not the workers' */
	bool is_down;			/**< as last read: its device has no link */
	/** As last read, by receive queue: empty buffers of the pool that wait for packets. */
	uint16_t nb_posted[ONVM_WORKERS_MAX];
	char name[ONVM_PORT_NAME_LENGTH];
	uint8_t has_fault;		   /**< atomic: `fault` is there, and stays */
	char fault[ONVM_PORT_FAULT_BYTES]; /**< why a file was not read or written to its end */
};

#define ONVM_BINDING_FAR (1u << 16)

/**
 * Open a port of some kind: fill @p port but for id, binding and name.
 *
 * @param options  the structure of options of this kind
 * @param error    gets the reason of a failure, one line, or stays empty
 * @return 0 or -errno
 */
typedef int onvm_port_opener(struct onvm_port *port, const void *options, uint32_t nb_workers,
			     char *error, size_t error_size);

/** A source's pace: so many packets per second, and so many in all. */
struct onvm_pace {
	uint64_t rate_pps; /**< 0: as fast as they are taken */
	uint64_t limit;	   /**< packets in all; UINT64_MAX: endless */
	uint64_t nb_sent;
	uint64_t begin; /**< TSC of the first packet */
	uint64_t hz;
};

/** Packets that are due at TSC @p now, at most @p nb. */
static inline uint16_t
onvm_pace_due(struct onvm_pace *pace, uint64_t now, uint16_t nb)
{
	uint64_t nb_due = nb;

	if (pace->limit - pace->nb_sent < nb_due)
		nb_due = pace->limit - pace->nb_sent;
	if (pace->rate_pps != 0) {
		uint64_t nb_by_now;

		if (pace->begin == 0)
			pace->begin = now;
		nb_by_now = (uint64_t)((double)(now - pace->begin) * (double)pace->rate_pps /
				       (double)pace->hz) +
			    1;
		/* After a pause do not make up for more than 10 ms. */
		if (nb_by_now > pace->nb_sent + pace->rate_pps / 100 + 64) {
			pace->begin = now;
			pace->limit -= pace->nb_sent;
			pace->nb_sent = 0;
			nb_by_now = 1;
		}
		if (nb_by_now <= pace->nb_sent)
			return 0;
		if (nb_by_now - pace->nb_sent < nb_due)
			nb_due = nb_by_now - pace->nb_sent;
	}
	return (uint16_t)nb_due;
}

/** TSC at which the next packet is due; 0: at once. */
static inline uint64_t
onvm_pace_next(const struct onvm_pace *pace)
{
	if (pace->rate_pps == 0 || pace->begin == 0)
		return 0;
	return pace->begin +
	       (uint64_t)((double)pace->nb_sent * (double)pace->hz / (double)pace->rate_pps);
}

#endif /* _ONVM_PORT_H_ */
