/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include <onvm/eal_log.h>

#include "tables_priv.h"

#define DEFAULT_MEGABYTES 1024u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_running;

/* EAL pins its caller to the main lcore; any allowed CPU will do, it is undone afterwards. */
static int
first_cpu(const cpu_set_t *cpus)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, cpus))
			return cpu;
	return 0;
}

static int
eal_start(uint32_t megabytes)
{
	char memory[16], lcores[32];
	char *argv[] = {
		"onvm-tables",
		"--no-huge",
		"--no-shconf",
		"--no-pci",
		"--no-telemetry",
		"--iova-mode=va",
		"--log-level=error",
		"--lcores",
		lcores,
		"-m",
		memory,
		NULL,
	};
	cpu_set_t cpus;
	int rc;

	if (pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus) != 0)
		CPU_ZERO(&cpus);
	snprintf(memory, sizeof(memory), "%u", megabytes);
	snprintf(lcores, sizeof(lcores), "0@%d", first_cpu(&cpus));
	/* "EAL: Detected CPU lcores" and the like come before the option is read. */
	rte_log_set_global_level(RTE_LOG_ERR);
	rc = onvm_eal_init((int)(sizeof(argv) / sizeof(argv[0])) - 1, argv);
	if (CPU_COUNT(&cpus) != 0)
		pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
	if (rc >= 0)
		return 0;
	/* The host program has started DPDK already: its memory is as good. */
	return rte_errno == EALREADY ? 0 : -(rte_errno != 0 ? rte_errno : EIO);
}

int
onvm_tables_init(uint32_t megabytes)
{
	int rc = 0;

	pthread_mutex_lock(&lock);
	if (!is_running) {
		rc = eal_start(megabytes != 0 ? megabytes : DEFAULT_MEGABYTES);
		is_running = rc == 0;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void
onvm_table_name(char name[ONVM_TABLE_NAME_SIZE], const char *kind)
{
	static uint32_t serial;

	snprintf(name, ONVM_TABLE_NAME_SIZE, "onvm_%s_%u", kind,
		 __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED));
}

uint64_t
onvm_tables_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
