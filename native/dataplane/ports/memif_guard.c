/* SPDX-License-Identifier: Apache-2.0 */

#include "ports/memif_guard.h"

#include <string.h>

#define NB_GUARDS 32

static struct onvm_memif_guard guards[NB_GUARDS];

/* The linker's names for a function that is wrapped; weak where the driver is not linked. */
void __wrap_memif_free_regions(struct rte_eth_dev *dev);
void __real_memif_free_regions(struct rte_eth_dev *dev) __attribute__((weak));

struct onvm_memif_guard *
onvm_memif_guard_of(const struct rte_eth_dev_info *info, uint16_t ethdev, uint16_t queue)
{
	if (info->driver_name == NULL || strcmp(info->driver_name, "net_memif") != 0)
		return NULL;
	return &guards[(ethdev + queue) % NB_GUARDS];
}

void
__wrap_memif_free_regions(struct rte_eth_dev *dev)
{
	for (uint32_t i = 0; i < NB_GUARDS; i++)
		rte_spinlock_lock(&guards[i].lock);
	__real_memif_free_regions(dev);
	for (uint32_t i = 0; i < NB_GUARDS; i++)
		rte_spinlock_unlock(&guards[i].lock);
}
