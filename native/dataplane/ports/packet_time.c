/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/packet_time.h"

#include <rte_errno.h>

int onvm_packet_time_offset = -1;
uint64_t onvm_packet_time_flag;

int
onvm_packet_time_register(void)
{
	if (rte_mbuf_dyn_rx_timestamp_register(&onvm_packet_time_offset, &onvm_packet_time_flag) !=
	    0)
		return -rte_errno;
	return 0;
}
