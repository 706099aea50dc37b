/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TABLE_SIZES_H_
#define _ONVM_TABLE_SIZES_H_

/**
 * @file
 * Sizes of the manager's tables, and the reasons for which it drops packets.
 */

#include <onvm/wire.h>

#define ONVM_HOSTS_MAX 256     /* NF hosts here; slot 0 is never used */
#define ONVM_SLOTS_MAX 4096    /* NF hosts that paths may name; from ONVM_HOSTS_MAX on at peers */
#define ONVM_NUMBERS_MAX 65536 /* numbers of NF hosts in the cluster; 0 is none */
#define ONVM_PEERS_MAX 1024    /* other hosts of the cluster; 0 is none */
#define ONVM_SERVICES_MAX 256  /* service IDs; 0 is none */
#define ONVM_CHAINS_MAX 256    /* chains; 0 is none */
#define ONVM_PORTS_MAX 64
#define ONVM_PORT_REMOTE 0x8000 /* port of a path or chain: one of peer (port - this) */
#define ONVM_PATHS_MAX 65536	/* rendered paths; 0 is none */
#define ONVM_CLAIMS_MAX 64 /* claims of one NF host: packets of new flows look at all of them */
#define ONVM_CHAIN_LENGTH_MAX 16 /* services of a chain */
#define ONVM_BURST_SIZE 64	 /* packets a worker takes at once */
#define ONVM_AREAS_MAX 8	 /* NUMA nodes that have packet memory */
#define ONVM_PENDING_MAX 512	 /* packets a worker holds back for one link or port */

/** Why the manager itself dropped a packet; NFs name reasons of their own. */
enum onvm_drop {
	ONVM_DROP_OVERSIZE = 0, /**< larger than a buffer, or cut short by the capture */
	ONVM_DROP_NO_CHAIN,	/**< came in on a port without a chain */
	ONVM_DROP_NO_INSTANCE,	/**< a service of the chain has no instance */
	ONVM_DROP_SHED,		/**< backpressure: a ring of the path is above its high watermark */
	ONVM_DROP_RING_FULL,	/**< redirected to an NF whose ring is full */
	ONVM_DROP_NF_DIED,	/**< was with an NF that died or was thrown out */
	ONVM_DROP_BAD_DESCRIPTOR, /**< came back with impossible bounds or verdict */
	ONVM_DROP_BAD_PORT,	  /**< sent to a port that does not exist */
	ONVM_DROP_BAD_SERVICE,	  /**< sent to a service that does not exist or has no instance */
	ONVM_DROP_NO_NEXT,	  /**< an originated packet without destination */
	ONVM_DROP_TX_FULL,	  /**< the port did not take it */
	ONVM_DROP_STOPPED,	  /**< still inside when the manager stopped */
	ONVM_DROP_FOREIGN,	  /**< from the data network, but not of this cluster */
	ONVM_DROP_NO_PATH,	  /**< from a peer, on a path that is not known here */
	ONVM_DROP_WAITING, /**< came while its chain waited for a service to have an instance */
	ONVM_DROPS,
};

/** Names of enum onvm_drop, as counters and JSON show them. */
extern const char *const onvm_drop_names[ONVM_DROPS];

#endif /* _ONVM_TABLE_SIZES_H_ */
