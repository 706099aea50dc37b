/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "child.h"
#include "host.h"

static struct onvm_nf_host *volatile stopping_host;
static volatile sig_atomic_t is_stop_requested;

static void
stop_handler(int number)
{
	(void)number;
	is_stop_requested = 1;
	if (stopping_host != NULL)
		onvm_nf_host_interrupt(stopping_host);
}

int
onvm_stop_on_signals(struct onvm_nf_host *host)
{
	struct sigaction action = {.sa_handler = stop_handler};

	stopping_host = host;
	onvm_watch_children(host);
	if (host == NULL)
		return 0;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGTERM, &action, NULL) | sigaction(SIGINT, &action, NULL);
}

int
onvm_stop_requested(void)
{
	return is_stop_requested;
}

int
onvm_confine(const uint8_t *program, size_t bytes)
{
	const struct sock_fprog filter = {
		.len = bytes / sizeof(struct sock_filter),
		.filter = (struct sock_filter *)program,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0 ? -errno : 0;
}

void
onvm_end_process(int status)
{
	fflush(NULL);
	_exit(status);
}
