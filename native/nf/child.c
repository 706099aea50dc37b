/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include <pthread.h>
#include <unistd.h>

#include "runtime.h"

static struct onvm_nf_host *watched;

/** After fork(), in the child: what the NF's function returns to knows it from now on. */
static void
on_fork(void)
{
	if (watched == NULL)
		return;
	watched->is_child = true;
	for (uint32_t i = 0; i < ONVM_STAGES_MAX; i++)
		watched->stages[i].forbidden |= ONVM_MAY_NOT_RETURN;
}

void
onvm_watch_children(struct onvm_nf_host *host)
{
	static bool is_set;

	watched = host;
	if (!is_set)
		is_set = pthread_atfork(NULL, NULL, on_fork) == 0;
}

void
onvm_end_child(void)
{
	static const char text[] = "onvm: a process that an NF has forked returned from the NF's "
				   "function: expected os._exit() in it, or subprocess\n";
	const ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);

	_exit(written < 0 ? 2 : 1);
}
