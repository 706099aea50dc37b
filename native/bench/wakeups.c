/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The least that the adaptive idle policy can cost here: two processes that wake each other at a
 * packet's rhythm and exchange nothing.
 *
 * 	onvm-bench-wakeups RATE MILLISECONDS CPU_A [CPU_B]
 *
 * A sleeps until the next packet would come (as a worker with a paced source), wakes B by a futex
 * (as an NF host is woken), and sleeps until B wakes it by an eventfd (as a worker is). One line:
 * CPU time of both in percent of a core, and the median time from A's wake of B to its own.
 *
 * Without CPU_B there is no B: A only sleeps until each packet would come.
 */

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 1000000u

/** Memory of both; each counts its turns. */
struct shared {
	uint32_t asked;	   /**< atomic, futex */
	uint32_t answered; /**< atomic */
	uint32_t must_stop;
};

static uint64_t rounds[ROUNDS_MAX];

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void
run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET((size_t)cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
		perror("sched_setaffinity");
}

static double
cpu_seconds(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
wake(struct shared *shared)
{
	__atomic_add_fetch(&shared->asked, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &shared->asked, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void
answer(struct shared *shared, int event_fd)
{
	const uint64_t one = 1;
	uint32_t seen = 0;

	for (;;) {
		while (__atomic_load_n(&shared->asked, __ATOMIC_ACQUIRE) == seen)
			syscall(SYS_futex, &shared->asked, FUTEX_WAIT, seen, NULL, NULL, 0);
		if (__atomic_load_n(&shared->must_stop, __ATOMIC_ACQUIRE))
			_exit(0);
		seen = __atomic_load_n(&shared->asked, __ATOMIC_ACQUIRE);
		__atomic_store_n(&shared->answered, seen, __ATOMIC_RELEASE);
		if (write(event_fd, &one, sizeof(one)) < 0)
			_exit(1);
	}
}

/** Sleep until @p deadline_ns (0: without one), or until the eventfd is written to. */
static void
sleep_until(int event_fd, uint64_t deadline_ns)
{
	const uint64_t now = now_ns();
	const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
	const struct timespec timeout = {.tv_sec = (time_t)(left / 1000000000u),
					 .tv_nsec = (long)(left % 1000000000u)};
	struct pollfd poller = {.fd = event_fd, .events = POLLIN};
	uint64_t count;

	if (ppoll(&poller, 1, deadline_ns == 0 ? NULL : &timeout, NULL) > 0 &&
	    read(event_fd, &count, sizeof(count)) < 0)
		perror("eventfd");
}

static int
by_value(const void *a, const void *b)
{
	const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/** Ask, if there is a B, @p rate times a second until @p end_ns; @return rounds. */
static uint32_t
ask(struct shared *shared, int event_fd, uint64_t rate, uint64_t end_ns, bool is_answered)
{
	uint64_t next = now_ns();
	uint32_t nb = 0;

	while (next < end_ns && nb < ROUNDS_MAX) {
		uint64_t begin;

		next += 1000000000u / rate;
		while (now_ns() < next)
			sleep_until(event_fd, next);
		begin = now_ns();
		if (is_answered)
			wake(shared);
		while (__atomic_load_n(&shared->answered, __ATOMIC_ACQUIRE) != shared->asked)
			sleep_until(event_fd, 0);
		rounds[nb++] = now_ns() - begin;
	}
	return nb;
}

int
main(int argc, char **argv)
{
	const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t begin, rate;
	double used, seconds;
	uint32_t nb;
	const bool is_answered = argc == 5;
	pid_t child = 0;

	if (argc < 4 || argc > 5 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "usage: %s RATE MILLISECONDS CPU_A [CPU_B]\n", argv[0]);
		return 2;
	}
	if (event_fd < 0 || shared == MAP_FAILED)
		return 1;
	rate = (uint64_t)atoi(argv[1]);
	if (is_answered)
		child = fork();
	if (child < 0)
		return 1;
	if (is_answered && child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_on(atoi(argv[4]));
		answer(shared, event_fd);
	}
	prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
	run_on(atoi(argv[3]));
	used = cpu_seconds(RUSAGE_SELF);
	begin = now_ns();
	nb = ask(shared, event_fd, rate, begin + (uint64_t)atoi(argv[2]) * 1000000u, is_answered);
	seconds = (double)(now_ns() - begin) / 1e9;
	used = cpu_seconds(RUSAGE_SELF) - used;
	__atomic_store_n(&shared->must_stop, 1, __ATOMIC_RELEASE);
	wake(shared);
	if (is_answered)
		waitpid(child, NULL, 0);
	used += cpu_seconds(RUSAGE_CHILDREN);
	if (nb == 0)
		return 1;
	qsort(rounds, nb, sizeof(rounds[0]), by_value);
	printf("%.1f %.2f\n", used / seconds * 100, (double)rounds[nb / 2] / 1e3);
	return 0;
}
