/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_CHILD_H_
#define _ONVM_NF_CHILD_H_

/**
 * @file
 * Children that an NF makes with fork().
 *
 * A child has the rings and the packets of its parent. If it returned from the NF's function, both
 * would give the same packets back. So it ends there, with a line that says why; the parent goes on.
 * Children that call exec() or _exit() never come here.
 */

#include <stdbool.h>

struct onvm_nf_host;

/** Watch for children of this process, which runs @p host; NULL: no longer. */
void onvm_watch_children(struct onvm_nf_host *host);

/** End this process, which is a child of the one that runs @p host. */
__attribute__((noreturn)) void onvm_end_child(void);

#endif /* _ONVM_NF_CHILD_H_ */
