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
 * Threads: a slot belongs to the worker that serves its queue.
 */

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "packet_memory.h"
#include "ports/offload.h"

/** Older headers lack it: segments of one UDP flow, each a datagram (UDP_SEGMENT). */
#define ONVM_VNET_GSO_UDP_L4 5

#define ONVM_VNET_PARTS 3

/** Where one frame is received. */
struct onvm_vnet_slot {
	struct virtio_net_hdr header;
	struct iovec parts[ONVM_VNET_PARTS];
	struct rte_mbuf *small, *large; /**< NULL: to be filled up */
};

/**
 * Give slots their buffers.
 *
 * @return how many slots, from the first on, are ready
 */
uint16_t onvm_vnet_prepare(struct onvm_vnet_slot *slots, uint16_t nb,
			   const struct onvm_packet_memory *memory, struct rte_mempool *pool);

/** The frame of @p length bytes, without the header, that was received in a slot. */
struct rte_mbuf *onvm_vnet_take(struct onvm_vnet_slot *slot, uint32_t length,
				const struct onvm_packet_memory *memory);

/** Ordinary buffers in slots; exact while nothing is received. Any thread. */
uint16_t onvm_vnet_posted(const struct onvm_vnet_slot *slots, uint16_t nb);

/** Give the buffers of slots back. */
void onvm_vnet_free(struct onvm_vnet_slot *slots, uint16_t nb);

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
