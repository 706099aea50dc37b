/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/loop.h"

#include "packet/verdict.h"
#include "packet/view.h"

#define PREFETCH_DISTANCE 2

struct loop {
	PyObject_HEAD PyObject *function; /* process_packet(pkt), bound, or (pkt, state) */
	PyObject *state;		  /* second argument, or NULL */
	PyObject *on_error;		  /* called without arguments after `error` is set */
	PyObject *error;		  /* what the function raised, or NULL */
	struct view *view;
};

static void
loop_fail(struct loop *loop)
{
	PyObject *type, *value, *trace, *result;

	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace != NULL)
		PyException_SetTraceback(value, trace);
	loop->error = value;
	Py_XDECREF(type);
	Py_XDECREF(trace);
	result = PyObject_CallNoArgs(loop->on_error);
	if (result == NULL)
		PyErr_WriteUnraisable(loop->on_error);
	Py_XDECREF(result);
}

/* Let go of the packet; the view serves the next one unless another object holds it. */
static int
loop_next_view(struct loop *loop)
{
	if (loop->view != NULL) {
		packet_view_end(loop->view);
		if (!packet_view_is_shared(loop->view))
			return 0;
		Py_DECREF((PyObject *)loop->view);
	}
	loop->view = packet_view_create();
	return loop->view == NULL ? -1 : 0;
}

/* @return 0, or -1 with an exception set */
static int
loop_call(struct loop *loop, struct onvm_ctx *ctx, struct onvm_pkt *pkt)
{
	struct view *view = loop->view;
	PyObject *result;
	int is_verdict;

	view->pkt = pkt;
	view->ctx = ctx;
	view->layout = onvm_layout_of(pkt);
	result = PyObject_CallFunctionObjArgs(loop->function, (PyObject *)view, loop->state, NULL);
	if (result == NULL)
		return -1;
	is_verdict = packet_verdict_returned(result, &pkt->verdict);
	Py_DECREF(result);
	return is_verdict < 0 ? -1 : 0;
}

static void
loop_kernel(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct loop *loop = ctx->state;
	PyGILState_STATE gil = PyGILState_Ensure();
	uint32_t nb_done = 0;

	if (loop->error == NULL) {
		for (; nb_done < nb_pkts; nb_done++) {
			if (nb_done + PREFETCH_DISTANCE < nb_pkts)
				__builtin_prefetch(pkts[nb_done + PREFETCH_DISTANCE].data, 1);
			if (loop_next_view(loop) < 0 || loop_call(loop, ctx, &pkts[nb_done]) < 0) {
				loop_fail(loop);
				break;
			}
		}
		if (loop_next_view(loop) < 0 && loop->error == NULL)
			loop_fail(loop);
	}
	for (; nb_done < nb_pkts; nb_done++)
		onvm_pkt_drop(&pkts[nb_done], 0);
	PyGILState_Release(gil);
}

static void
loop_dealloc(PyObject *self)
{
	struct loop *loop = (struct loop *)self;
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF(loop->function);
	Py_XDECREF(loop->state);
	Py_XDECREF(loop->on_error);
	Py_XDECREF(loop->error);
	Py_XDECREF((PyObject *)loop->view);
	PyObject_Free(self);
	Py_DECREF(type);
}

static PyObject *
loop_get(PyObject *self, void *closure)
{
	struct loop *loop = (struct loop *)self;

	switch ((uintptr_t)closure) {
	case 0:
		return PyLong_FromVoidPtr((void *)(uintptr_t)loop_kernel);
	case 1:
		return PyLong_FromVoidPtr(loop);
	default:
		return Py_NewRef(loop->error != NULL ? loop->error : Py_None);
	}
}

static PyGetSetDef loop_getset[] = {
	{"kernel", loop_get, NULL, NULL, (void *)0},
	{"state", loop_get, NULL, NULL, (void *)1},
	{"error", loop_get, NULL, NULL, (void *)2},
	{NULL, NULL, NULL, NULL, NULL},
};
static PyTypeObject *loop_type;

PyObject *
packet_loop(PyObject *module, PyObject *arguments)
{
	PyObject *function, *on_error, *state = NULL;
	struct loop *loop;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "OO|O", &function, &on_error, &state))
		return NULL;
	loop = PyObject_New(struct loop, loop_type);
	if (loop == NULL)
		return NULL;
	loop->function = Py_NewRef(function);
	loop->on_error = Py_NewRef(on_error);
	loop->state = Py_XNewRef(state);
	loop->error = NULL;
	loop->view = NULL;
	return (PyObject *)loop;
}

static PyType_Slot loop_slots[] = {
	{Py_tp_dealloc, (void *)loop_dealloc},
	{Py_tp_getset, loop_getset},
	{0, NULL},
};
static PyType_Spec loop_spec = {"onvm_sdk._native._packet.Loop", sizeof(struct loop), 0,
				Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, loop_slots};

int
packet_loops_create(PyObject *module)
{
	loop_type = (PyTypeObject *)PyType_FromSpec(&loop_spec);
	return loop_type == NULL ? -1 : PyModule_AddType(module, loop_type);
}
