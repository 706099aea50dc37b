/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/header.h"
#include "packet/loop.h"
#include "packet/stale.h"
#include "packet/view.h"

/*
 * PacketView and the loop that calls process_packet(): Python objects written in C, because at a
 * microsecond per packet every attribute access of a Python class is a tenth of the budget.
 *
 * One view serves all packets of a loop, moved from packet to packet, as long as nothing but the
 * loop holds it (or one of its headers). A view that an author has kept is left behind, marked
 * stale, and replaced by a new one: so using it later raises, and costs nothing otherwise.
 */

/* A view of a packet that the caller keeps alive; end_view() makes it stale. */
static PyObject *
packet_view(PyObject *module, PyObject *arguments)
{
	unsigned long long pkt, ctx;
	struct view *view;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "KK", &pkt, &ctx))
		return NULL;
	view = packet_view_create();
	if (view == NULL)
		return NULL;
	view->pkt = (struct onvm_pkt *)(uintptr_t)pkt;
	view->ctx = (struct onvm_ctx *)(uintptr_t)ctx;
	view->layout = onvm_layout_of(view->pkt);
	return (PyObject *)view;
}

/* A view of a held packet, good as long as the packet is held; None if it is not. */
static PyObject *
packet_held_view(PyObject *module, PyObject *arguments)
{
	unsigned long long held, ctx;
	struct onvm_pkt *pkt;
	struct view *view;
	unsigned int token;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "KIK", &held, &token, &ctx))
		return NULL;
	pkt = onvm_held_get((struct onvm_held *)(uintptr_t)held, token);
	if (pkt == NULL)
		Py_RETURN_NONE;
	view = packet_view_create();
	if (view == NULL)
		return NULL;
	view->pkt = pkt;
	view->held = (struct onvm_held *)(uintptr_t)held;
	view->token = token;
	view->ctx = (struct onvm_ctx *)(uintptr_t)ctx;
	view->layout = onvm_layout_of(pkt);
	return (PyObject *)view;
}

static PyObject *
packet_end_view(PyObject *module, PyObject *argument)
{
	struct view *view = (struct view *)argument;

	(void)module;
	if (!PyObject_TypeCheck(argument, packet_view_type)) {
		PyErr_SetString(PyExc_TypeError, "a PacketView expected");
		return NULL;
	}
	packet_view_end(view);
	Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
	{"loop", packet_loop, METH_VARARGS, NULL},
	{"view", packet_view, METH_VARARGS, NULL},
	{"held_view", packet_held_view, METH_VARARGS, NULL},
	{"end_view", packet_end_view, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT, "_packet", NULL, -1, module_methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__packet(void);

PyMODINIT_FUNC
PyInit__packet(void)
{
	PyObject *module = PyModule_Create(&module_def);
	PyObject *errors = PyImport_ImportModule("onvm_sdk.errors");

	if (module == NULL || errors == NULL)
		return NULL;
	packet_stale_error = PyObject_GetAttrString(errors, "StaleViewError");
	Py_DECREF(errors);
	if (packet_stale_error == NULL || packet_headers_create() < 0 ||
	    packet_views_create(module) < 0 || packet_loops_create(module) < 0)
		return NULL;
	return module;
}
