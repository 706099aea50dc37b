/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/stale.h"

PyObject *packet_stale_error;

int
packet_raise_stale(void)
{
	PyErr_SetString(packet_stale_error,
			"a packet view lives as long as its burst; copy what you keep");
	return -1;
}
