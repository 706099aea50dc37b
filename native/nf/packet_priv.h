/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PACKET_PRIV_H_
#define _ONVM_PACKET_PRIV_H_

/**
 * @file
 * Inside of the extension module _packet: headers (packet_header.c), views (packet_view.c) and the
 * loop that calls process_packet() (packet_loop.c).
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <onvm/fields.h>

#define NB_HEADERS (ONVM_H_ICMP + 1)

struct view;

struct header {
	PyObject_HEAD struct view *view; /* borrowed; NULL once the view is gone */
};

struct view {
	PyObject_HEAD struct onvm_pkt *pkt; /* NULL: stale */
	struct onvm_ctx *ctx;
	struct onvm_layout layout;
	struct header *header[NB_HEADERS];
	PyObject *data; /* memoryview handed out, or NULL */
};

/** onvm_sdk.errors.StaleViewError */
extern PyObject *packet_stale_error;
extern PyTypeObject *packet_view_type;

/** Set the exception of a view that is used after its burst. @return -1 */
int packet_raise_stale(void);

/** Make the types of headers. @return 0, or -1 with an exception set */
int packet_headers_create(void);
/** A new header object of @p view; NULL with an exception set. */
struct header *packet_header_create(struct view *view, uint32_t header);

/** Make the type of views. @return 0, or -1 with an exception set */
int packet_views_create(PyObject *module);
/** A view of nothing; NULL with an exception set. */
struct view *packet_view_create(void);
/** Let go of the packet: whoever holds @p view finds it stale. */
void packet_view_end(struct view *view);
/** Whether somebody besides the owner holds @p view or one of its headers. */
int packet_view_is_shared(const struct view *view);

/** Make the type of loops. @return 0, or -1 with an exception set */
int packet_loops_create(PyObject *module);
/** loop(function, on_error, [state]) of the module */
PyObject *packet_loop(PyObject *module, PyObject *arguments);

#endif /* _ONVM_PACKET_PRIV_H_ */
