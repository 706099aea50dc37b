/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PACKET_VERDICT_H_
#define _ONVM_NF_PACKET_VERDICT_H_

/**
 * @file
 * Verdicts as members of onvm_sdk.Verdict, and what an author's function returns as a verdict.
 */

#include "packet/types.h"

/** The member with this number; a new reference, or NULL with an exception set. */
PyObject *packet_verdict(uint8_t verdict);
/**
 * Read what process_packet() returned.
 *
 * @return 1 and the number in @p verdict; 0: None, the packet keeps the verdict that it has; -1: it
 * is no verdict, and an exception is set
 */
int packet_verdict_returned(PyObject *result, uint8_t *verdict);

#endif /* _ONVM_NF_PACKET_VERDICT_H_ */
