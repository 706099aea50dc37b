/* SPDX-License-Identifier: Apache-2.0 */
#include "permissions.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "runtime.h"

int
onvm_nf_host_permit(struct onvm_nf_host *host, uint32_t stage, uint32_t permissions)
{
	if (stage >= host->nb_stages)
		return -EINVAL;
	host->stages[stage].forbidden = (uint8_t)(~permissions & (ONVM_MAY_WRITE | ONVM_MAY_DROP));
	return 0;
}

int
onvm_nf_host_offender(const struct onvm_nf_host *host)
{
	return host->offender;
}

bool
onvm_nf_host_reads_only(const struct onvm_nf_host *host)
{
	for (uint32_t i = 0; i < host->nb_stages; i++)
		if ((host->stages[i].forbidden & ONVM_MAY_WRITE) == 0)
			return false;
	return true;
}

void
onvm_stage_undo_drops(struct onvm_stage *stage, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	for (uint32_t i = 0; i < nb_pkts; i++) {
		if (pkts[i].verdict != ONVM_DROP)
			continue;
		pkts[i].verdict = ONVM_NEXT;
		stage->host->offender = (int)stage->index;
	}
	if (stage->host->offender >= 0) /* the loop that called us looks at it */
		__atomic_store_n(&stage->host->interrupt, 1, __ATOMIC_RELEASE);
}

/* ---- stores into packets ---- */

static const uint8_t *protected_memory;
static uint64_t protected_bytes;
static struct sigaction before;

static void
on_store(int number, siginfo_t *info, void *context)
{
	static const char text[] =
		"onvm: an NF without the permission \"rewrite\" wrote into a packet\n";
	const uint8_t *address = info->si_addr;

	if (address >= protected_memory && address < protected_memory + protected_bytes &&
	    write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(1); /* stderr has no reader */
	/* The store is tried again, and the handler before this one shows where it is. */
	sigaction(number, &before, NULL);
	(void)context;
}

void
onvm_explain_stores(const uint8_t *memory, uint64_t bytes)
{
	struct sigaction action = {.sa_sigaction = on_store, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	const bool is_first = protected_memory == NULL;

	protected_memory = memory;
	protected_bytes = bytes;
	if (is_first)
		sigaction(SIGSEGV, &action, &before);
}
