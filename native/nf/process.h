/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PROCESS_H_
#define _ONVM_NF_PROCESS_H_

/**
 * @file
 * The process of an NF host: signals that end it, the system calls it may make, and its end.
 */

#include <stddef.h>
#include <stdint.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

struct onvm_nf_host;

/**
 * Let SIGTERM and SIGINT interrupt @p host; NULL: no host any more.
 *
 * Python runs its signal handlers between bytecodes, which the native loop does not come to.
 *
 * @return 0, or below 0 when a handler could not be set
 */
ONVM_EXPORT int onvm_stop_on_signals(struct onvm_nf_host *host);
/** Whether such a signal has come. */
ONVM_EXPORT int onvm_stop_requested(void);
/**
 * Allow this process only the system calls of a seccomp program, for good. Threads that start
 * later are confined as well.
 *
 * @return 0 or -errno
 */
ONVM_EXPORT int onvm_confine(const uint8_t *program, size_t bytes);
/**
 * Write out the C streams, and end this process.
 *
 * Nothing is freed: rte_free() writes zeros over what it frees, and would so touch all the memory
 * of a table of which a few pages were ever used.
 */
ONVM_EXPORT void onvm_end_process(int status);

#endif /* _ONVM_NF_PROCESS_H_ */
