/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_VNET_H_
#define _ONVM_VNET_H_

/**
 * @file
 * The virtio-net header (VIRTIO 1.2, section 5.1.6), with which kernels hand over frames that have
 * work left to do, to and from ports/offload.h; and the receiving of such frames.
 *
 * Frames are read into a pair of buffers: an ordinary one, and the part of a large one behind what
 * the ordinary one holds. So a small frame lies where it belongs, and of a large one only the
 * beginning is copied.
 *
 * Threads: a queue belongs to one worker; any thread may ask how many frames were bad, and how many
 * buffers wait.
 */

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "packet_memory.h"
#include "ports/offload.h"
#include "ports/port.h"

/** Older headers lack it: segments of one UDP flow, each a datagram (UDP_SEGMENT). */
#define ONVM_VNET_GSO_UDP_L4 5

#define ONVM_VNET_PARTS 3
/** Frames that are received in one go, at most. */
#define ONVM_VNET_BURST 32

/** Where one frame is received. */
struct onvm_vnet_slot {
	struct virtio_net_hdr header;
	struct iovec parts[ONVM_VNET_PARTS];
	struct rte_mbuf *small, *large; /**< NULL: to be filled up */
};

/** What a receive queue holds. */
struct onvm_vnet_queue {
	uint32_t nb_skips, skips; /**< turns to leave out, before an empty file is read again */
	uint64_t nb_bad; /**< atomic: frames that their headers contradict, or that do not fit */
	struct onvm_cutter cutter;
	struct rte_mbuf *frames[ONVM_VNET_BURST]; /**< that the cutter works on */
	struct onvm_vnet_slot slots[ONVM_VNET_BURST];
};

/** Read at most @p nb frames of a port's queue from the kernel; @return how many, in @p mbufs. */
typedef uint16_t (*onvm_vnet_reader)(struct onvm_port *port, uint16_t index,
				     struct rte_mbuf **mbufs, uint16_t nb);

/**
 * Receive a burst: what is left of the frames that are being cut, or else new frames, cut if NFs
 * must see packets of wire size. An empty file is left alone for a few turns.
 */
uint16_t onvm_vnet_receive(struct onvm_vnet_queue *queue, onvm_vnet_reader read_frames,
			   struct onvm_port *port, uint16_t index, struct rte_mbuf **mbufs,
			   uint16_t nb, struct onvm_rx_result *result);

/**
 * Give slots their buffers.
 *
 * @return how many slots, from the first on, are ready; at most @p nb
 */
uint16_t onvm_vnet_prepare(struct onvm_vnet_queue *queue, uint16_t nb,
			   const struct onvm_packet_memory *memory, struct rte_mempool *pool);

/**
 * The frame that was received in slot @p index.
 *
 * @param length bytes, the virtio-net header included; below 0: the frame did not fit
 * @return NULL: it is bad, which is counted
 */
struct rte_mbuf *onvm_vnet_take(struct onvm_vnet_queue *queue, uint16_t index, ssize_t length,
				const struct onvm_packet_memory *memory);

/** Ordinary buffers in slots; exact while nothing is received. Any thread. */
uint16_t onvm_vnet_posted(const struct onvm_vnet_queue *queue);

/** Frames that were bad, so far. Any thread. */
uint64_t onvm_vnet_bad(const struct onvm_vnet_queue *queue);

/** Count a frame that the kernel could not describe. */
void onvm_vnet_count_bad(struct onvm_vnet_queue *queue);

/** Give all buffers back. */
void onvm_vnet_free(struct onvm_vnet_queue *queue);

/** Put a VLAN tag back that the kernel has taken out. */
void onvm_vnet_insert_vlan(struct rte_mbuf *mbuf, uint16_t ethertype, uint16_t tci);

/**
 * Note in a received frame what its header leaves to do. Checksums of other protocols than TCP and
 * UDP are made at once.
 *
 * @return whether the header can be true of the frame
 */
bool onvm_vnet_read(const struct virtio_net_hdr *header, struct rte_mbuf *mbuf);

/**
 * Make the header of a frame that is to be sent, and the checksum field that belongs to it.
 *
 * @return bytes of the largest packet on the wire, Ethernet header included
 */
uint32_t onvm_vnet_write(struct rte_mbuf *mbuf, struct virtio_net_hdr *header);

#endif /* _ONVM_VNET_H_ */
