/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PORT_KINDS_H_
#define _ONVM_PORT_KINDS_H_

/**
 * @file
 * The functions that open ports of each kind.
 */

#include "port_options.h"
#include "ports/port.h"

#define ONVM_X(constant, name) onvm_port_opener onvm_port_##name##_open;
ONVM_PORT_KINDS(ONVM_X)
#undef ONVM_X

/** Counters of a port that onvm_port_gen_open() made; -EINVAL for another kind. */
int onvm_port_gen_read(const struct onvm_port *port, struct onvm_dp_gen_stats *stats);

#endif /* _ONVM_PORT_KINDS_H_ */
