/* SPDX-License-Identifier: Apache-2.0 */
#include <rte_eal.h>
int onvm_dp_init(int argc, char **argv);
int onvm_dp_init(int argc, char **argv) { return rte_eal_init(argc, argv); }
