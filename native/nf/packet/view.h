/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PACKET_VIEW_H_
#define _ONVM_NF_PACKET_VIEW_H_

/**
 * @file
 * Views of packets.
 */

#include "packet/types.h"

extern PyTypeObject *packet_view_type;

/** Make the type of views. @return 0, or -1 with an exception set */
int packet_views_create(PyObject *module);
/** A view of nothing; NULL with an exception set. */
struct view *packet_view_create(void);
/** Let go of the packet: holders of @p view find it stale. */
void packet_view_end(struct view *view);
/** Whether another object than the owner holds @p view or one of its headers. */
int packet_view_is_shared(const struct view *view);

#endif /* _ONVM_NF_PACKET_VIEW_H_ */
