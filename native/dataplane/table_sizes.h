/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TABLE_SIZES_H_
#define _ONVM_TABLE_SIZES_H_

/**
 * @file
 * Sizes of the manager's tables.
 */

#include <onvm/wire.h>

#define ONVM_HOSTS_MAX 256     /* NF hosts here; slot 0 is never used */
#define ONVM_SLOTS_MAX 4096    /* NF hosts that paths may name; from ONVM_HOSTS_MAX on at peers */
#define ONVM_NUMBERS_MAX 65536 /* numbers of NF hosts in the cluster; 0 is none */
#define ONVM_PEERS_MAX 1024    /* other hosts of the cluster; 0 is none */
#define ONVM_SERVICES_MAX 256  /* service IDs; 0 is none */
#define ONVM_CHAINS_MAX 256    /* chains; 0 is none */
#define ONVM_PORTS_MAX 64
#define ONVM_PORT_NAME_LENGTH 64 /* bytes of a name, with its final 0 */
#define ONVM_PORT_REMOTE 0x8000	 /* port of a path or chain: one of peer (port - this) */
#define ONVM_PATHS_MAX 65536	 /* rendered paths; 0 is none */
#define ONVM_CLAIMS_MAX 64 /* claims of one NF host: each new flow is compared with all of them */
#define ONVM_AFFINITIES_MAX 4	 /* services of a chain that are chosen by an address */
#define ONVM_CHAIN_LENGTH_MAX 16 /* services of a chain */
#define ONVM_FLOW_LIVES 7   /* lifetimes of flows that a service may tell: enum onvm_flow_class */
#define ONVM_FLOW_CLASSES 8 /* with one that has another's */
#define ONVM_BURST_SIZE 64  /* packets a worker takes at once */
#define ONVM_RING_LENGTH_MIN (2 * ONVM_BURST_SIZE) /* slots of a ring */
#define ONVM_AREAS_MAX 8			   /* NUMA nodes that have packet memory */
#define ONVM_PENDING_MAX 512 /* packets that may be pending for one link or port */

#endif /* _ONVM_TABLE_SIZES_H_ */
