/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_HOUSEKEEPING_H_
#define _ONVM_CONTROL_HOUSEKEEPING_H_

/**
 * @file
 * The thread that ages flows, makes retired paths free again (steering.h), and lets go of devices
 * that are taken away.
 */

/** Start the thread; 0 or not. */
int onvm_housekeeping_start(void);
/** Stop it, if it runs. */
void onvm_housekeeping_stop(void);

#endif /* _ONVM_CONTROL_HOUSEKEEPING_H_ */
