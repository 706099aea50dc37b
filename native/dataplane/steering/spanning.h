/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_SPANNING_H_
#define _ONVM_SPANNING_H_

/**
 * @file
 * Paths that span hosts. Every host renders them for itself; packets carry which NF hosts they lead
 * through, by numbers that the cluster gives out.
 *
 * Threads: workers and the control thread.
 */

#include "steering/steering.h"

/** Most NF hosts of a path whose packets go to peers. */
#define ONVM_SPAN_MAX 8
/** Seconds for which packets that name an unknown NF host are dropped. */
#define ONVM_UNKNOWN_S 2
/** Successors that are followed at most, when state has moved on again and again. */
#define ONVM_SUCCESSORS_MAX 8

/** Numbers of the NF hosts of @p path as the cluster knows them, in forward order; 0: unknown. */
void onvm_span_numbers(const struct onvm_steering *steering, const struct onvm_path *path,
		       uint16_t *numbers);
/**
 * The path of chain @p number of the cluster through the NF hosts with these numbers.
 *
 * For a number that is unknown or has ended, all hosts choose the same other one (by rendezvous,
 * Thaler and Ravishankar 1998), so both directions of a flow meet it.
 *
 * @param hash  of the flow; decides where all numbers are 0
 * @return the forward path, or 0
 */
uint16_t onvm_span_path(struct onvm_steering *steering, uint32_t number, const uint16_t *numbers,
			uint32_t hash);
/** The substitute, among those that serve a position, for the host the path had there; 0: none. */
uint16_t onvm_span_substitute(const struct onvm_steering *steering,
			      const struct onvm_choice *choice, uint64_t seed, uint32_t nb_stages);
/**
 * Whether host @p peer may hand over packets at hop @p hop of @p path; nb_hops: at its exit.
 *
 * It may if the path comes from there: it has the port that the path begins at, or an earlier hop.
 * It also may if it runs or ran the hop's service: then it forwards what came to it too late, when
 * state has moved on or the other hosts' views are older than its own.
 */
bool onvm_span_may_hand_over(const struct onvm_steering *steering, const struct onvm_path *path,
			     uint32_t hop, uint16_t peer);
/** A seed that all hosts derive alike from these numbers. */
uint64_t onvm_span_seed(const uint16_t *numbers);

#endif /* _ONVM_SPANNING_H_ */
