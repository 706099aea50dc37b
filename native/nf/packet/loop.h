/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PACKET_LOOP_H_
#define _ONVM_NF_PACKET_LOOP_H_

/**
 * @file
 * The loop that calls process_packet().
 */

#include "packet/types.h"

/** Make the type of loops. @return 0, or -1 with an exception set */
int packet_loops_create(PyObject *module);
/** loop(function, on_error, [state]) of the module */
PyObject *packet_loop(PyObject *module, PyObject *arguments);

#endif /* _ONVM_NF_PACKET_LOOP_H_ */
