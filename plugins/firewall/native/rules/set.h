/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_SET_H_
#define _ONVM_FIREWALL_SET_H_

/**
 * @file
 * Large sets of addresses: sorted ranges, and where those of each first half of an IPv4 address begin.
 *
 * 8 bytes for a range of IPv4, 32 of IPv6, and 256 KiB for each set.
 */

#include "../firewall.h"

struct address_set;

struct address_set *set_create(const struct firewall_set *given);
void set_free(struct address_set *set);
/** @param address  in network order, of the IP version's size */
bool set_has(const struct address_set *set, uint32_t ip_version, const uint8_t *address);

#endif /* _ONVM_FIREWALL_SET_H_ */
