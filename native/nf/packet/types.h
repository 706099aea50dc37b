/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_PACKET_TYPES_H_
#define _ONVM_NF_PACKET_TYPES_H_

/**
 * @file
 * The objects of the extension module _packet.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <onvm/fields.h>

#include "held.h"
#include "rare.h"

/* Objects of headers: those of a layout, then those that are looked for when they are used. */
#define NB_LAYOUT_HEADERS (ONVM_H_ICMP + 1)
#define NB_HEADERS (NB_LAYOUT_HEADERS + ONVM_H_RARE_END - ONVM_H_ARP)
#define RARE_OBJECT(header) ((uint32_t)(NB_LAYOUT_HEADERS + (header) - ONVM_H_ARP))

struct view;

struct header {
	PyObject_HEAD struct view *view; /* borrowed; NULL once the view is gone */
};

struct view {
	PyObject_HEAD struct onvm_pkt *pkt; /* NULL: stale */
	struct onvm_ctx *ctx;
	struct onvm_held *held; /* of a held packet, which may have been released; else NULL */
	uint32_t token;
	struct onvm_layout layout;
	struct header *header[NB_HEADERS];
	bool has_rare;	   /* one of those behind NB_LAYOUT_HEADERS has been made */
	PyObject *data;	   /* memoryview handed out, or NULL */
	PyObject *payload; /* likewise */
};

/** Whether the packet of a view is not there any more. */
static inline int
packet_is_stale(const struct view *view)
{
	return view->pkt == NULL ||
	       (view->held != NULL && onvm_held_get(view->held, view->token) != view->pkt);
}

#endif /* _ONVM_NF_PACKET_TYPES_H_ */
