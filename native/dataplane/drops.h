/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_DROPS_H_
#define _ONVM_DROPS_H_

/**
 * @file
 * Why the manager itself drops a packet. NFs name reasons of their own.
 *
 * The list below is the only one: the enum, the names of counters and the texts of the manual all
 * come from it. A new reason goes to its end, gets a row in docs/operating.md, and is counted with
 * onvm_worker_drop().
 */

/** X(constant, name in counters and JSON, meaning in the manual) */
#define ONVM_DROP_REASONS(X)                                                              \
	X(OVERSIZE, "oversize", "larger than a buffer, or cut short by the capture")      \
	X(NO_CHAIN, "no_chain", "came in on a port that no chain uses")                   \
	X(NO_INSTANCE, "no_instance", "a service of the chain has no instance")           \
	X(SHED, "shed", "a link of its path was above the high watermark")                \
	X(RING_FULL, "ring_full", "redirected to an NF whose link had no credit left")    \
	X(NF_DIED, "nf_died", "was with an NF that died or was thrown out")               \
	X(BAD_DESCRIPTOR, "bad_descriptor", "an NF returned it with impossible bounds")   \
	X(BAD_PORT, "bad_port", "an NF sent it to a port that does not exist")            \
	X(BAD_SERVICE, "bad_service", "an NF sent it to a service without an instance")   \
	X(NO_NEXT, "no_next", "an NF made it and named no destination")                   \
	X(TX_FULL, "tx_full", "the port did not take it")                                 \
	X(STOPPED, "stopped", "still inside when the manager stopped")                    \
	X(FOREIGN, "foreign", "arrived on the data network, but not from this cluster")   \
	X(NO_PATH, "no_path", "came from a peer on a path that does not exist here")      \
	X(WAITING, "waiting", "its chain waits until a service has an instance")          \
	X(RX_MISSED, "rx_missed", "the receive queue of the port was full")               \
	X(RX_NO_BUFFER, "rx_no_buffer", "there was no buffer to receive it into")         \
	X(RX_ERROR, "rx_error", "damaged, or of a kind that the port cannot take in")     \
	X(TX_REFUSED, "tx_refused", "the device of the port did not send it")             \
	X(MTU, "mtu", "larger than the MTU of the port that it was to leave by")          \
	X(DOWN, "down", "the port that it was to leave by was down")                      \
	X(WRITE_FAILED, "write_failed", "the file of the port could not be written")      \
	X(PATHS_FULL, "paths_full", "there was no room for another path")                 \
	X(WRONG_HOP, "wrong_hop", "a peer handed it over at a hop that it is not before") \
	X(FORGED, "forged", "pretended to come from a peer, and has no right tag")        \
	X(REPLAYED, "replayed", "came from a peer a second time")                         \
	X(NO_KEY, "no_key", "was to go to a peer that has not agreed on a key yet")       \
	X(REASSEMBLED, "reassembled", "a fragment that went on in its datagram")          \
	X(FRAGMENT_TIMEOUT, "fragment_timeout", "the rest of its datagram did not come")  \
	X(FRAGMENT_OVERLAP, "fragment_overlap", "overlaps or denies another fragment")    \
	X(FRAGMENT_DUPLICATE, "fragment_duplicate", "the same fragment came before")      \
	X(FRAGMENT_TINY, "fragment_tiny", "too small, or of too many of one datagram")    \
	X(FRAGMENT_BAD, "fragment_bad", "no fragment can have this size and place")       \
	X(FRAGMENTS_FULL, "fragments_full", "gave way to fragments of newer datagrams")

enum onvm_drop {
#define ONVM_X(constant, name, text) ONVM_DROP_##constant,
	ONVM_DROP_REASONS(ONVM_X) ONVM_DROPS,
#undef ONVM_X
};

#endif /* _ONVM_DROPS_H_ */
