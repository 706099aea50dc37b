/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: a true assertion passes; a false one aborts and names file, line and condition.
 */
#include <onvm/assert.h>

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static void
test_a_true_assertion_passes(void)
{
	ONVM_ASSERT(1 + 1 == 2);
}

static void
test_a_false_assertion_aborts_and_says_where(void)
{
	char said[256] = "";
	int ends[2], status;
	pid_t child;

	CHECK(pipe(ends) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		dup2(ends[1], STDERR_FILENO);
		ONVM_ASSERT(1 + 1 == 3);
		_exit(0);
	}
	close(ends[1]);
	CHECK(read(ends[0], said, sizeof(said) - 1) > 0);
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	CHECK(strstr(said, "test_assert.c:") != NULL);
	CHECK(strstr(said, "assertion failed: 1 + 1 == 3") != NULL);
	close(ends[0]);
}

int
main(void)
{
	RUN(test_a_true_assertion_passes);
	RUN(test_a_false_assertion_aborts_and_says_where);
	return 0;
}
