/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_HELD_H_
#define _ONVM_NF_HELD_H_

/**
 * @file
 * Held packets: those that an NF keeps beyond its burst, to release them later.
 *
 * A packet gets a slot and a token when the NF holds it, and the verdict ONVM_HOLD, so that the
 * runtime does not return it. The NF releases it by its token, whenever it runs: in a later burst,
 * a timer, a message. The runtime then takes the released packets, in the order of their release,
 * and passes them on to the stages behind, or returns them to the worker that they came from.
 *
 * A held packet keeps its buffer, and the credits of the rest of its path. So their number has a
 * limit, which the runtime sets from the length of the rings.
 *
 * Life of a slot: free, held, released, free. A token names a slot and how often it has been used,
 * so one that is used twice finds nothing. onvm_held_settle() after each call of a kernel lets go
 * of packets that got another verdict after they had been held.
 *
 * Threads: the one that runs the NF host.
 */

#include <onvm/nf.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

static_assert(ONVM_HELD_MAX <= 1 << 16, "a token has 16 bits for the slot");

struct onvm_held;

/** @return NULL without memory, or if @p capacity is not 1..ONVM_HELD_MAX */
ONVM_EXPORT struct onvm_held *onvm_held_create(uint32_t capacity);
ONVM_EXPORT void onvm_held_free(struct onvm_held *held);
/** Allow at most @p limit packets from now on; more than that may be held already. */
ONVM_EXPORT void onvm_held_limit(struct onvm_held *held, uint32_t limit);

/** Hold @p pkt. @return its token; 0: the limit is reached, or @p held is NULL */
ONVM_EXPORT uint32_t onvm_held_add(struct onvm_held *held, struct onvm_pkt *pkt);
/** The packet of a token; NULL if it is not held. */
ONVM_EXPORT struct onvm_pkt *onvm_held_get(struct onvm_held *held, uint32_t token);
/** Release a packet with this verdict. @return 0, or -ENOENT if it is not held */
ONVM_EXPORT int
onvm_held_release(struct onvm_held *held, uint32_t token, uint32_t verdict, uint32_t destination);
/** Release all, in the order in which they came, with ONVM_NEXT. @return how many */
ONVM_EXPORT uint32_t onvm_held_release_all(struct onvm_held *held);

/** Packets that are held; that were ever held; that were refused because of the limit. */
ONVM_EXPORT uint32_t onvm_held_count(const struct onvm_held *held);
ONVM_EXPORT uint64_t onvm_held_total(const struct onvm_held *held);
ONVM_EXPORT uint64_t onvm_held_refused(const struct onvm_held *held);
ONVM_EXPORT uint32_t onvm_held_limit_of(const struct onvm_held *held);

/**
 * After a kernel: close the gaps that held packets leave in the burst.
 *
 * @return packets that are left
 */
ONVM_EXPORT uint32_t onvm_held_settle(struct onvm_held *held, struct onvm_pkt *pkts, uint32_t nb);
/** Packets that have been released, and not been taken yet. */
ONVM_EXPORT uint32_t onvm_held_released(const struct onvm_held *held);
/** Take up to @p nb released packets, the first ones first. @return how many */
ONVM_EXPORT uint32_t onvm_held_take(struct onvm_held *held, struct onvm_pkt *pkts, uint32_t nb);
/** Forget all: their memory is gone. @return how many were held or released */
ONVM_EXPORT uint32_t onvm_held_forget(struct onvm_held *held);

/** For struct onvm_ctx. */
ONVM_EXPORT uint32_t onvm_ctx_hold(struct onvm_ctx *ctx, struct onvm_pkt *pkt);
ONVM_EXPORT struct onvm_pkt *onvm_ctx_held(struct onvm_ctx *ctx, uint32_t token);
ONVM_EXPORT int
onvm_ctx_release(struct onvm_ctx *ctx, uint32_t token, uint32_t verdict, uint32_t destination);

#endif /* _ONVM_NF_HELD_H_ */
