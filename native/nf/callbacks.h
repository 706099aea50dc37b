/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_CALLBACKS_H_
#define _ONVM_NF_CALLBACKS_H_

/**
 * @file
 * Functions in Python whose addresses C gets. cffi defines them in the module `_nf`; nothing in C
 * calls them by name.
 */

#include <onvm/nf.h>

#ifdef ONVM_CDEF
/** An onvm_columns_handler. */
extern "Python" int onvm_python_burst(void *handle);
/** Called by a compiled kernel that has raised, with the packet at which it did. */
extern "Python" void onvm_python_raised(void *handle, struct onvm_ctx *ctx, struct onvm_pkt *pkt);
/** An onvm_ctx.originate, in tests without a manager. */
extern "Python" struct onvm_pkt *onvm_python_originate(struct onvm_ctx *ctx);
#endif

#endif /* _ONVM_NF_CALLBACKS_H_ */
