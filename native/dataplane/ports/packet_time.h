/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PACKET_TIME_H_
#define _ONVM_PACKET_TIME_H_

/**
 * @file
 * The time at which a packet was captured: a field of its mbuf, with a flag.
 *
 * NFs are told of it in the slot of the packet (ONVM_F_TIMED), captures are written with it.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>

extern int onvm_packet_time_offset;
extern uint64_t onvm_packet_time_flag; /**< 0: no packet has a time */

/** Reserve the field; once is enough. @return 0 or -errno */
int onvm_packet_time_register(void);

static inline bool
onvm_packet_has_time(const struct rte_mbuf *mbuf)
{
	return (mbuf->ol_flags & onvm_packet_time_flag) != 0;
}

/** Nanoseconds since 1970; only of a packet that has a time. */
static inline uint64_t
onvm_packet_time(const struct rte_mbuf *mbuf)
{
	return *RTE_MBUF_DYNFIELD(mbuf, onvm_packet_time_offset, const uint64_t *);
}

static inline void
onvm_packet_set_time(struct rte_mbuf *mbuf, uint64_t ns)
{
	*RTE_MBUF_DYNFIELD(mbuf, onvm_packet_time_offset, uint64_t *) = ns;
	mbuf->ol_flags |= onvm_packet_time_flag;
}

#endif /* _ONVM_PACKET_TIME_H_ */
