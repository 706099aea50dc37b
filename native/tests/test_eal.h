/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _TEST_EAL_H_
#define _TEST_EAL_H_

/** @file DPDK's environment for tests: one core, no huge pages, nothing shared. */

#include <rte_eal.h>

#include "test.h"

/** Start it with @p megabytes of memory. */
static inline void
test_eal_init(const char *program, const char *megabytes)
{
	char *arguments[] = {(char *)program,	 (char *)"--no-huge",	   (char *)"--no-shconf",
			     (char *)"--no-pci", (char *)"--no-telemetry", (char *)"--iova-mode=va",
			     (char *)"-m",	 (char *)megabytes,	   (char *)"--lcores",
			     (char *)"0@0",	 (char *)"--log-level=4",  NULL};

	CHECK(rte_eal_init(11, arguments) >= 0);
}

#endif /* _TEST_EAL_H_ */
