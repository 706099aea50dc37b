/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_EAL_LOG_H_
#define _ONVM_EAL_LOG_H_

/**
 * @file
 * Starting DPDK's environment without words that mean nothing.
 *
 * It tells of folders that another user has made under /tmp, and goes on without them. So what it
 * says is kept until it is known whether the start has failed; only then it is shown.
 */

#include <stdio.h>
#include <stdlib.h>

#include <rte_eal.h>
#include <rte_log.h>

/** rte_eal_init(), with its log on stderr only if it fails. */
static inline int
onvm_eal_init(int argc, char **argv)
{
	char *text = NULL;
	size_t size = 0;
	FILE *const log = open_memstream(&text, &size);
	int rc;

	if (log != NULL)
		rte_openlog_stream(log);
	rc = rte_eal_init(argc, argv);
	if (log == NULL)
		return rc;
	rte_openlog_stream(NULL);
	fclose(log);
	if (rc < 0)
		fwrite(text, 1, size, stderr);
	free(text);
	return rc;
}

#endif
