/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_AGREEMENT_H_
#define _ONVM_AGREEMENT_H_

/**
 * @file
 * How two hosts that share a secret agree on keys for their datagrams, without clock and socket.
 *
 * Each end draws a random nonce for each agreement and sends it with its probes, together with
 * the nonce that it has heard from the other end. A probe that names our newest nonce was made after
 * we drew it: it is fresh, and its own nonce is the peer's. The keys follow from the secret and both
 * nonces, one for each direction, so no two agreements have a key in common, whatever restarts.
 *
 * ```
 *  a                                   b
 *  |-- nonce A, heard nothing -------->|  a nonce it does not know: it draws B, accepts under (A, B)
 *  |<------------- nonce B, heard A ---|
 *  |  fresh: sends under (A, B)        |
 *  |-- nonce A, heard B -------------->|  fresh: sends under (A, B)
 * ```
 *
 * Either end begins again when it likes to (keys are rotated so) or has restarted; the keys in use
 * stay until the new ones are agreed. A probe that was recorded and is sent again can make an end
 * draw a nonce, and nothing more. Probes themselves carry an HMAC under the secret (probe_packet.h)
 * and a sequence number that only grows.
 *
 * Threads: the probing thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "peers/security/keys.h"

#define ONVM_NONCE_BYTES 16
#define ONVM_SECRET_BYTES ONVM_HMAC_BYTES

/** What a probe says of keys. */
struct onvm_agreement_message {
	uint64_t sequence; /**< grows with each probe of its sender */
	uint8_t nonce[ONVM_NONCE_BYTES];
	uint8_t heard[ONVM_NONCE_BYTES]; /**< of the other end; zeros: none */
	uint8_t key; /**< number of the key for what the sender receives under its nonce */
};

enum onvm_agreement_news {
	ONVM_AGREEMENT_OLD,    /**< recorded, or out of order: it tells nothing */
	ONVM_AGREEMENT_HINT,   /**< the peer has a nonce that is not known; it may be recorded */
	ONVM_AGREEMENT_FRESH,  /**< the peer has just sent it, under the agreement in use */
	ONVM_AGREEMENT_AGREED, /**< the same, and there are new keys */
};

struct onvm_agreement {
	const uint8_t *secret; /**< of the pair, ONVM_SECRET_BYTES */
	bool is_agreed;	       /**< `mine` and `theirs` are in use */
	bool is_pending;       /**< `drawn` waits for the peer */
	bool is_accepting;     /**< there is a key for what comes under `drawn` and `heard` */
	uint8_t key;	       /**< number of the newest key for what is received */
	uint8_t mine[ONVM_NONCE_BYTES], theirs[ONVM_NONCE_BYTES];
	uint8_t drawn[ONVM_NONCE_BYTES];
	uint8_t heard[ONVM_NONCE_BYTES];
	uint64_t sequence; /**< of the newest fresh probe of the peer */
};

/** Draw a nonce, to agree on new keys. */
void onvm_agreement_begin(struct onvm_agreement *agreement);
/**
 * Take in what a genuine probe says.
 *
 * @param takes_hints  false: an unknown nonce is not answered, so that recorded probes cannot make
 *                     keys change all the time
 */
enum onvm_agreement_news
onvm_agreement_take(struct onvm_agreement *agreement, struct onvm_peer_keys *keys,
		    const struct onvm_agreement_message *message, bool takes_hints);
/** Fill in what the next probe says; its sequence number is the caller's. */
void
onvm_agreement_say(const struct onvm_agreement *agreement, struct onvm_agreement_message *message);

#endif /* _ONVM_AGREEMENT_H_ */
