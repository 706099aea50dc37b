/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ASSERT_H_
#define _ONVM_ASSERT_H_

/**
 * @file
 * Invariants that a debug build checks.
 *
 * ONVM_ASSERT(condition) states what must be true of our own data, whatever an NF, a peer or a
 * packet does. With ONVM_DEBUG defined (meson's debug_asserts, and every C test) a false condition
 * prints file, line and condition and aborts. Without it the condition is compiled and never
 * evaluated: it costs nothing and must have no side effects.
 *
 * Input from outside is no matter for assertions. It is checked in every build and counted.
 */

#ifdef ONVM_DEBUG

#include <stdio.h>
#include <stdlib.h>

static inline __attribute__((noreturn, cold)) void
onvm_assert_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
	abort();
}

#define ONVM_ASSERT(condition) \
	((condition) ? (void)0 : onvm_assert_failed(__FILE__, __LINE__, #condition))

#else

#define ONVM_ASSERT(condition) ((void)sizeof(!(condition)))

#endif

#endif /* _ONVM_ASSERT_H_ */
