/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_ATTACH_H_
#define _ONVM_NF_ATTACH_H_

/**
 * @file
 * The connection of an NF host to its manager, besides what host.h declares.
 */

#include "runtime.h"

/** Drop the mapping and the socket; the manager takes the buffers back. */
void onvm_nf_host_detach(struct onvm_nf_host *host);
/** Whether the manager's end of the socket is still open. */
bool onvm_nf_host_is_alive(const struct onvm_nf_host *host);

#endif /* _ONVM_NF_ATTACH_H_ */
