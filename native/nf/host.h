/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_HOST_H_
#define _ONVM_NF_HOST_H_

/**
 * @file
 * The runtime of an NF host: attach to a manager, run fused NFs on bursts, leave cleanly.
 *
 * Life: create, set stages, attach, run until it says why it stopped, handle that, run again;
 * free detaches. After ONVM_EVENT_DETACHED (the manager is gone) attach again: stages and their
 * state stay as they are.
 *
 * Each stage is a kernel (onvm/nf.h). Packets pass the stages in order, packets of the reverse
 * direction in reverse order; those with a verdict other than ONVM_NEXT leave at once.
 *
 * Threads: one thread for everything, except onvm_nf_host_interrupt(), which any thread and a
 * signal handler may call.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/nf.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

struct onvm_nf_host;

/** Why onvm_nf_host_run() came back. */
enum onvm_nf_event {
	ONVM_EVENT_DEADLINE = 1,  /**< the time it was given is over */
	ONVM_EVENT_MESSAGE = 2,	  /**< onvm_nf_host_receive() has something */
	ONVM_EVENT_INTERRUPT = 3, /**< onvm_nf_host_interrupt() was called */
	ONVM_EVENT_DETACHED = 4,  /**< the manager is gone */
};

/** @return NULL without memory */
ONVM_EXPORT struct onvm_nf_host *onvm_nf_host_create(void);
ONVM_EXPORT void onvm_nf_host_free(struct onvm_nf_host *host);

/** Set stage @p stage; stages are numbered from 0 without gaps. @return 0 or -EINVAL */
ONVM_EXPORT int
onvm_nf_host_set_stage(struct onvm_nf_host *host, uint32_t stage, onvm_kernel kernel, void *state);

/** Tell the manager that packets may come (ONVM_MSG_READY). */
ONVM_EXPORT int onvm_nf_host_ready(struct onvm_nf_host *host);
ONVM_EXPORT const char *onvm_nf_host_error(const struct onvm_nf_host *host);
/** The manager's reply; valid until the next attach. */
ONVM_EXPORT const struct onvm_attach_reply *onvm_nf_host_reply(const struct onvm_nf_host *host);

/**
 * Receive, process and return bursts until something else is to be done.
 *
 * @param deadline_ns  CLOCK_MONOTONIC at which to come back; 0: never
 * @return enum onvm_nf_event
 */
ONVM_EXPORT int onvm_nf_host_run(struct onvm_nf_host *host, uint64_t deadline_ns);

/** Call the kernel of a stage without packets: it may make some, which leave with the next run. */
ONVM_EXPORT void onvm_nf_host_turn(struct onvm_nf_host *host, uint32_t stage);

/**
 * Sleep whenever there is nothing to do, or no longer so: a thread of a lower priority works on this
 * CPU. It gets the time between bursts, and a burst that comes does not wait for it.
 */
ONVM_EXPORT void onvm_nf_host_give_way(struct onvm_nf_host *host, bool gives_way);

/** Make onvm_nf_host_run() come back soon. Async-signal-safe. */
ONVM_EXPORT void onvm_nf_host_interrupt(struct onvm_nf_host *host);

/**
 * Take a message. After ONVM_EVENT_MESSAGE call it until it gives -EAGAIN: the event comes once
 * for all messages that wait.
 *
 * @param payload  at least ONVM_MESSAGE_MAX bytes
 * @return bytes of payload, -EAGAIN when there is none, -ENOTCONN when the manager is gone
 */
ONVM_EXPORT int onvm_nf_host_receive(struct onvm_nf_host *host, struct onvm_message_header *header,
				     uint8_t *payload);
/** Send a message; @p header->length is filled in. @return 0 or -errno */
ONVM_EXPORT int onvm_nf_host_send(struct onvm_nf_host *host, struct onvm_message_header *header,
				  const uint8_t *payload, uint32_t length);
/**
 * Let a stage make packets, and hold up to @p nb_held of them. The stage may be set later.
 *
 * @return 0 or -errno
 */
ONVM_EXPORT int
onvm_nf_host_allow(struct onvm_nf_host *host, uint32_t stage, bool may_originate, uint32_t nb_held);
/** Packets that a stage holds; NULL: it may hold none. */
ONVM_EXPORT struct onvm_held *onvm_nf_host_held(struct onvm_nf_host *host, uint32_t stage);
/** The context of a stage's kernel, for what the NF does outside of it. */
ONVM_EXPORT struct onvm_ctx *onvm_nf_host_ctx(struct onvm_nf_host *host, uint32_t stage);
/** Let NFs hold packets; or release all that they hold, and let them hold no more. */
ONVM_EXPORT void onvm_nf_host_hold(struct onvm_nf_host *host, bool allowed);
/** Values of stage @p stage's counters, ONVM_COUNTERS_MAX of them; NULL before the attach. */
ONVM_EXPORT const uint64_t *onvm_nf_host_counters(struct onvm_nf_host *host, uint32_t stage);

#endif /* _ONVM_NF_HOST_H_ */
