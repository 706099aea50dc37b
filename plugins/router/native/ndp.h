/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ROUTER_NDP_H_
#define _ONVM_ROUTER_NDP_H_

/**
 * @file
 * Messages of neighbour discovery (RFC 4861). Offsets are those of a frame without extension
 * headers; the hop limit is at 21, the addresses at 22 and 38.
 */

#define NDP_ICMP 54
#define NDP_TARGET 62
#define NDP_OPTIONS 78
#define NDP_HOP_LIMIT 255
#define NDP_ROUTER_SOLICITATION 133
#define NDP_ROUTER_ADVERTISEMENT 134
#define NDP_SOLICITATION 135
#define NDP_ADVERTISEMENT 136
#define NDP_FLAG_SOLICITED 0x40
#define NDP_OPTION_SOURCE 1
#define NDP_OPTION_TARGET 2

#endif /* _ONVM_ROUTER_NDP_H_ */
