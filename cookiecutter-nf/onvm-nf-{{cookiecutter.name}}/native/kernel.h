#ifndef _KERNEL_H_
#define _KERNEL_H_

#include <onvm/nf.h>

/** State of the kernel: created by kernel.py, constant afterwards. */
struct kernel_state {
	uint16_t port;   /**< blocked UDP port, host byte order */
	uint16_t reason; /**< index of the drop reason in the manifest */
};

void kernel_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);

#endif /* _KERNEL_H_ */
