/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>
#include <rte_eal.h>
int onvm_tables_init(uint32_t megabytes) { (void)megabytes; char *argv[] = {"x","--no-huge","--no-shconf","--no-pci","--no-telemetry","-m","64"}; return rte_eal_init(7, argv) < 0 ? -1 : 0; }
