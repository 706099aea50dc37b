/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_NEIGHBOUR_H_
#define _ONVM_GEN_NEIGHBOUR_H_

/**
 * @file
 * Hosts of the generator as neighbours of a router: each has the same MAC address.
 *
 * They answer ARP requests (RFC 826) and neighbour solicitations (RFC 4861) for any address, so
 * that the generator stands on both sides of a router. Probes for duplicates, which have no source,
 * and announcements get no answer.
 */

#include <rte_mbuf.h>

enum onvm_gen_neighbour {
	ONVM_GEN_TRAFFIC,  /**< something else */
	ONVM_GEN_HEARD,	   /**< there is no answer */
	ONVM_GEN_ANSWERED, /**< the packet is its answer now */
};

/** Turn a question into its answer. */
enum onvm_gen_neighbour onvm_gen_neighbour_answer(struct rte_mbuf *mbuf);

#endif /* _ONVM_GEN_NEIGHBOUR_H_ */
