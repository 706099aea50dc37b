/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TABLES_PRIV_H_
#define _ONVM_TABLES_PRIV_H_

#include <stdbool.h>

#define ONVM_TABLE_NAME_SIZE 24 /* rte_hash and friends allow 32 and add prefixes of their own */

/** A name that no other table of this process has: DPDK finds its tables by name. */
void onvm_table_name(char name[ONVM_TABLE_NAME_SIZE], const char *kind);

#endif /* _ONVM_TABLES_PRIV_H_ */
