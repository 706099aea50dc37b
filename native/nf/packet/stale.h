/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PACKET_STALE_H_
#define _ONVM_NF_PACKET_STALE_H_

/**
 * @file
 * The error of a view that is used after its burst.
 */

#include "packet/types.h"

/** onvm_sdk.errors.StaleViewError */
extern PyObject *packet_stale_error;

/** Set the exception. @return -1 */
int packet_raise_stale(void);

#endif /* _ONVM_NF_PACKET_STALE_H_ */
