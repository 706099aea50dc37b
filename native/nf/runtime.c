/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>
ONVM_EXPORT int onvm_nf_version(void);
int onvm_nf_version(void) { return 1; }
