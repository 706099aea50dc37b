/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_ATTACH_H_
#define _ONVM_NF_ATTACH_H_

/**
 * @file
 * The connection of an NF host to its manager.
 */

#include <stdbool.h>
#include <stdint.h>

#include <onvm/wire.h>

#ifndef ONVM_EXPORT
#define ONVM_EXPORT __attribute__((visibility("default")))
#endif

struct onvm_nf_host;

/**
 * Attach to the manager that listens at @p path. Blocks up to @p timeout_ms for it to be there.
 *
 * @p hello needs everything but magic, version and pid.
 *
 * @return 0, or -errno with a line for the user in onvm_nf_host_error(): -ETIMEDOUT no manager
 *         listens, -EPROTO another layout version, others as the manager refused
 */
ONVM_EXPORT int onvm_nf_host_attach(struct onvm_nf_host *host, const char *path,
				    const struct onvm_attach_hello *hello, uint32_t timeout_ms);

/** Drop the mapping and the socket; the manager takes the buffers back. */
void onvm_nf_host_detach(struct onvm_nf_host *host);
/** Whether the manager's end of the socket is still open. */
bool onvm_nf_host_is_alive(const struct onvm_nf_host *host);

#endif /* _ONVM_NF_ATTACH_H_ */
