/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PROCESS_H_
#define _ONVM_NF_PROCESS_H_

/**
 * @file
 * The process of an NF host: signals that end it, and the system calls it may make.
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

#endif /* _ONVM_NF_PROCESS_H_ */
