/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_THREAD_H_
#define _ONVM_CONTROL_THREAD_H_

/**
 * @file
 * A thread beside the workers, on the processors that are not theirs. DPDK makes it; its call has
 * another name and form since 23.11, and the old one is gone in 24.03.
 */

#include <pthread.h>

#include <rte_lcore.h>
#include <rte_version.h>

#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)

#include <rte_thread.h>

typedef rte_thread_t onvm_control_thread;
/** Return type of its function; the value is always 0. */
typedef uint32_t onvm_control_thread_result;

static inline int
onvm_control_thread_create(onvm_control_thread *thread, const char *name,
			   onvm_control_thread_result (*run)(void *))
{
	return rte_thread_create_control(thread, name, run, NULL);
}

static inline int
onvm_control_thread_join(onvm_control_thread thread)
{
	return rte_thread_join(thread, NULL);
}

#else

typedef pthread_t onvm_control_thread;
/** Return type of its function; the value is always 0. */
typedef void *onvm_control_thread_result;

static inline int
onvm_control_thread_create(onvm_control_thread *thread, const char *name,
			   onvm_control_thread_result (*run)(void *))
{
	return rte_ctrl_thread_create(thread, name, NULL, run, NULL);
}

static inline int
onvm_control_thread_join(onvm_control_thread thread)
{
	return pthread_join(thread, NULL);
}

#endif

#endif /* _ONVM_CONTROL_THREAD_H_ */
