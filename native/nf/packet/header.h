/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PACKET_HEADER_H_
#define _ONVM_NF_PACKET_HEADER_H_

/**
 * @file
 * Headers of a packet view.
 */

#include "packet/types.h"

/** Make the types of headers. @return 0, or -1 with an exception set */
int packet_headers_create(void);
/** A new header object of @p view; NULL with an exception set. */
struct header *packet_header_create(struct view *view, uint32_t header);

#endif /* _ONVM_NF_PACKET_HEADER_H_ */
