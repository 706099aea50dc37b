/* SPDX-License-Identifier: Apache-2.0 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <onvm/fields.h>

#include "columns.h"

/*
 * PacketView and the loop that calls process_packet(): Python objects written in C, because at a
 * microsecond per packet every attribute access of a Python class is a tenth of the budget.
 *
 * One view serves all packets of a loop, moved from packet to packet, as long as nobody but the
 * loop holds it (or one of its headers). A view that an author has kept is left behind, marked
 * stale, and replaced by a new one: so using it later raises, and costs nothing when nobody does.
 */

#define NB_HEADERS (ONVM_H_ICMP + 1)
#define PREFETCH_DISTANCE 2

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

static PyObject *stale_error;
static PyTypeObject *view_type;
static PyTypeObject *header_type[NB_HEADERS];

static const struct onvm_field fields[ONVM_FIELD_COUNT] = {
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable) \
	{ONVM_H_##header, offset, bytes, shift, bits, sums, writable},
	ONVM_FIELDS(ONVM_X)
#undef ONVM_X
};

static int
raise_stale(void)
{
	PyErr_SetString(stale_error,
			"a packet view lives as long as its burst; copy what you keep");
	return -1;
}

static struct view *
live(PyObject *self)
{
	struct view *view = (struct view *)self;

	if (view->pkt == NULL) {
		raise_stale();
		return NULL;
	}
	return view;
}

/* ---- headers ---- */

static PyObject *
wide_from_be(const uint8_t *at)
{
	PyObject *high = PyLong_FromUnsignedLongLong(onvm_load_be(at, 8));
	PyObject *low = PyLong_FromUnsignedLongLong(onvm_load_be(at + 8, 8));
	PyObject *shift = PyLong_FromLong(64), *shifted = NULL, *whole = NULL;

	if (high != NULL && low != NULL && shift != NULL)
		shifted = PyNumber_Lshift(high, shift);
	if (shifted != NULL)
		whole = PyNumber_Or(shifted, low);
	Py_XDECREF(high);
	Py_XDECREF(low);
	Py_XDECREF(shift);
	Py_XDECREF(shifted);
	return whole;
}

static PyObject *
field_get(PyObject *self, void *closure)
{
	const struct onvm_field *field = closure;
	struct view *view = ((struct header *)self)->view;

	if (view == NULL || view->pkt == NULL) {
		raise_stale();
		return NULL;
	}
	if (field->bytes == 16) {
		if (!onvm_layout_has(&view->layout, field->header))
			return PyLong_FromLong(0);
		return wide_from_be(onvm_header_at(view->pkt->data, &view->layout, field->header) +
				    field->offset);
	}
	return PyLong_FromUnsignedLongLong(onvm_field_load(view->pkt->data, &view->layout, field));
}

static int
wide_store(struct view *view, const struct onvm_field *field, PyObject *value)
{
	struct onvm_field half = *field;
	PyObject *shift = PyLong_FromLong(64), *high = NULL;
	uint64_t low_word, high_word;

	if (shift != NULL)
		high = PyNumber_Rshift(value, shift);
	Py_XDECREF(shift);
	if (high == NULL)
		return -1;
	high_word = PyLong_AsUnsignedLongLongMask(high);
	Py_DECREF(high);
	low_word = PyLong_AsUnsignedLongLongMask(value);
	if (PyErr_Occurred())
		return -1;
	half.bytes = 8;
	half.bits = 64;
	onvm_field_store(view->pkt->data, &view->layout, &half, high_word);
	half.offset = (uint8_t)(half.offset + 8);
	onvm_field_store(view->pkt->data, &view->layout, &half, low_word);
	return 0;
}

static int
field_set(PyObject *self, PyObject *value, void *closure)
{
	const struct onvm_field *field = closure;
	struct view *view = ((struct header *)self)->view;
	uint64_t word;

	if (view == NULL || view->pkt == NULL)
		return raise_stale();
	if (value == NULL) {
		PyErr_SetString(PyExc_AttributeError, "a header field cannot be deleted");
		return -1;
	}
	if (field->bytes == 16)
		return wide_store(view, field, value);
	word = PyLong_AsUnsignedLongLongMask(value);
	if (word == UINT64_MAX && PyErr_Occurred())
		return -1;
	onvm_field_store(view->pkt->data, &view->layout, field, word);
	return 0;
}

static void
header_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_Free(self);
	Py_DECREF(type);
}

#define SET_0 NULL
#define SET_1 field_set
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable) \
	{#name, field_get, SET_##writable, NULL, (void *)&fields[ONVM_FIELD_##header##_##name]},

/* The rows of ONVM_FIELDS that belong to one header, found by their closure at start-up. */
static PyGetSetDef all_fields[] = {ONVM_FIELDS(ONVM_X){NULL, NULL, NULL, NULL, NULL}};
#undef ONVM_X

static PyGetSetDef header_getset[NB_HEADERS][ONVM_FIELD_COUNT + 1];
static const char *const header_name[NB_HEADERS] = {
	"onvm_sdk.packet.EthHeader",  "onvm_sdk.packet.VlanHeader", "onvm_sdk.packet.Ipv4Header",
	"onvm_sdk.packet.Ipv6Header", "onvm_sdk.packet.TcpHeader",  "onvm_sdk.packet.UdpHeader",
	"onvm_sdk.packet.IcmpHeader",
};

static PyTypeObject *
header_type_create(uint32_t header)
{
	PyGetSetDef *next = header_getset[header];
	PyType_Slot slots[] = {
		{Py_tp_dealloc, (void *)header_dealloc},
		{Py_tp_getset, header_getset[header]},
		{0, NULL},
	};
	PyType_Spec spec = {header_name[header], sizeof(struct header), 0,
			    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

	for (uint32_t id = 0; id < ONVM_FIELD_COUNT; id++)
		if (fields[id].header == header ||
		    (fields[id].header == ONVM_H_TYPE && header == ONVM_H_ETH))
			*next++ = all_fields[id];
	return (PyTypeObject *)PyType_FromSpec(&spec);
}

/* ---- views ---- */

static PyObject *
view_header(PyObject *self, void *closure)
{
	struct view *view = (struct view *)self;
	const uintptr_t id = (uintptr_t)closure;
	struct header *header = view->header[id];

	if (header == NULL) {
		header = PyObject_New(struct header, header_type[id]);
		if (header == NULL)
			return NULL;
		header->view = view;
		view->header[id] = header;
	}
	Py_INCREF((PyObject *)header);
	return (PyObject *)header;
}

static PyObject *
view_has(PyObject *self, void *closure)
{
	const struct view *view = live(self);

	if (view == NULL)
		return NULL;
	return PyBool_FromLong(onvm_layout_has(&view->layout, (uint32_t)(uintptr_t)closure));
}

enum own {
	LENGTH,
	PORT,
	FLOW_HASH,
	PROTOCOL,
	VLAN_COUNT,
	VERDICT,
	DESTINATION,
	HEADROOM,
	TAILROOM
};

static PyObject *
view_own(PyObject *self, void *closure)
{
	const struct view *view = live(self);
	uint32_t value = 0;

	if (view == NULL)
		return NULL;
	switch ((enum own)(uintptr_t)closure) {
	case LENGTH:
		value = view->pkt->length;
		break;
	case PORT:
		value = view->pkt->port;
		break;
	case FLOW_HASH:
		value = view->pkt->flow_hash;
		break;
	case PROTOCOL:
		value = view->layout.protocol;
		break;
	case VLAN_COUNT:
		value = onvm_layout_has(&view->layout, ONVM_H_VLAN) ? (view->layout.l3 - 14) / 4u :
								      0;
		break;
	case VERDICT:
		value = view->pkt->verdict;
		break;
	case DESTINATION:
		value = view->pkt->destination;
		break;
	case HEADROOM:
		value = view->pkt->headroom;
		break;
	case TAILROOM:
		value = view->pkt->tailroom;
		break;
	}
	return PyLong_FromUnsignedLong(value);
}

static PyObject *
view_data(PyObject *self, void *closure)
{
	struct view *view = live(self);

	(void)closure;
	if (view == NULL)
		return NULL;
	if (view->data == NULL)
		view->data = PyMemoryView_FromMemory((char *)view->pkt->data, view->pkt->length,
						     PyBUF_WRITE);
	Py_XINCREF(view->data);
	return view->data;
}

/* The memoryview of the packet ends; one that is exported further cannot be, and is let go. */
static void
release_data(struct view *view)
{
	PyObject *result;

	if (view->data == NULL)
		return;
	result = PyObject_CallMethod(view->data, "release", NULL);
	if (result == NULL)
		PyErr_Clear();
	Py_XDECREF(result);
	Py_CLEAR(view->data);
}

static PyObject *
view_move(PyObject *self, PyObject *argument, uint8_t *(*move)(struct onvm_pkt *, uint16_t))
{
	struct view *view = live(self);
	unsigned long length;

	if (view == NULL)
		return NULL;
	length = PyLong_AsUnsignedLong(argument);
	if (length == (unsigned long)-1 && PyErr_Occurred())
		return NULL;
	if (length > UINT16_MAX || move(view->pkt, (uint16_t)length) == NULL)
		Py_RETURN_FALSE;
	release_data(view);
	onvm_layout_read(view->pkt, &view->layout);
	Py_RETURN_TRUE;
}

static PyObject *
view_push(PyObject *self, PyObject *argument)
{
	return view_move(self, argument, onvm_pkt_push);
}

static PyObject *
view_pull(PyObject *self, PyObject *argument)
{
	return view_move(self, argument, onvm_pkt_pull);
}

static PyObject *
view_tobytes(PyObject *self, PyObject *unused)
{
	const struct view *view = live(self);

	(void)unused;
	if (view == NULL)
		return NULL;
	return PyBytes_FromStringAndSize((const char *)view->pkt->data, view->pkt->length);
}

/* Set verdict and destination; gives the verdict, so that "return pkt.drop(2)" reads well. */
static PyObject *
decide(PyObject *self, PyObject *const *arguments, Py_ssize_t nb_arguments, uint8_t verdict,
       Py_ssize_t nb_needed)
{
	struct view *view = live(self);
	unsigned long destination = 0;

	if (view == NULL)
		return NULL;
	if (nb_arguments > 1 || nb_arguments < nb_needed) {
		PyErr_SetString(PyExc_TypeError, "one number expected");
		return NULL;
	}
	if (nb_arguments == 1) {
		destination = PyLong_AsUnsignedLong(arguments[0]);
		if (destination == (unsigned long)-1 && PyErr_Occurred())
			return NULL;
	}
	if (destination > UINT16_MAX) {
		PyErr_SetString(PyExc_OverflowError, "a reason, port or service ID is below 65536");
		return NULL;
	}
	view->pkt->verdict = verdict;
	view->pkt->destination = (uint16_t)destination;
	return PyLong_FromLong(verdict);
}

static PyObject *
view_drop(PyObject *self, PyObject *const *arguments, Py_ssize_t nb_arguments)
{
	return decide(self, arguments, nb_arguments, ONVM_DROP, 0);
}

static PyObject *
view_out(PyObject *self, PyObject *const *arguments, Py_ssize_t nb_arguments)
{
	return decide(self, arguments, nb_arguments, ONVM_OUT, 1);
}

static PyObject *
view_to_service(PyObject *self, PyObject *const *arguments, Py_ssize_t nb_arguments)
{
	return decide(self, arguments, nb_arguments, ONVM_TO_SERVICE, 1);
}

static PyObject *
view_originate(PyObject *self, PyObject *arguments)
{
	const struct view *view = live(self);
	const char *bytes;
	Py_ssize_t length;
	unsigned int verdict = ONVM_NEXT, destination = 0;

	if (view == NULL ||
	    !PyArg_ParseTuple(arguments, "y#|II", &bytes, &length, &verdict, &destination))
		return NULL;
	if (length > UINT16_MAX || view->ctx == NULL)
		Py_RETURN_FALSE;
	return PyBool_FromLong(onvm_originate(view->ctx, (const uint8_t *)bytes, (uint32_t)length,
					      verdict, destination) == 0);
}

static void
view_dealloc(PyObject *self)
{
	struct view *view = (struct view *)self;
	PyTypeObject *type = Py_TYPE(self);

	view->pkt = NULL;
	release_data(view);
	for (uint32_t id = 0; id < NB_HEADERS; id++) {
		if (view->header[id] != NULL)
			view->header[id]->view = NULL;
		Py_CLEAR(view->header[id]);
	}
	PyObject_Free(self);
	Py_DECREF(type);
}

#define HEADER(name, id) {name, view_header, NULL, NULL, (void *)(uintptr_t)(id)}
#define HAS(name, id) {name, view_has, NULL, NULL, (void *)(uintptr_t)(id)}
#define OWN(name, id) {name, view_own, NULL, NULL, (void *)(uintptr_t)(id)}
static PyGetSetDef view_getset[] = {
	HEADER("eth", ONVM_H_ETH),
	HEADER("vlan", ONVM_H_VLAN),
	HEADER("ipv4", ONVM_H_IPV4),
	HEADER("ipv6", ONVM_H_IPV6),
	HEADER("tcp", ONVM_H_TCP),
	HEADER("udp", ONVM_H_UDP),
	HEADER("icmp", ONVM_H_ICMP),
	HAS("is_vlan", ONVM_H_VLAN),
	HAS("is_ipv4", ONVM_H_IPV4),
	HAS("is_ipv6", ONVM_H_IPV6),
	HAS("is_tcp", ONVM_H_TCP),
	HAS("is_udp", ONVM_H_UDP),
	HAS("is_icmp", ONVM_H_ICMP),
	HAS("is_fragment", ONVM_H_FRAGMENT),
	HAS("is_reverse", ONVM_H_REVERSE),
	OWN("length", LENGTH),
	OWN("port", PORT),
	OWN("flow_hash", FLOW_HASH),
	OWN("protocol", PROTOCOL),
	OWN("vlan_count", VLAN_COUNT),
	OWN("verdict", VERDICT),
	OWN("destination", DESTINATION),
	OWN("headroom", HEADROOM),
	OWN("tailroom", TAILROOM),
	{"data", view_data, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef view_methods[] = {
	{"push", view_push, METH_O, NULL},
	{"pull", view_pull, METH_O, NULL},
	{"tobytes", view_tobytes, METH_NOARGS, NULL},
	{"drop", (PyCFunction)(void (*)(void))view_drop, METH_FASTCALL, NULL},
	{"out", (PyCFunction)(void (*)(void))view_out, METH_FASTCALL, NULL},
	{"to_service", (PyCFunction)(void (*)(void))view_to_service, METH_FASTCALL, NULL},
	{"originate", view_originate, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static struct view *
view_create(void)
{
	struct view *view = PyObject_New(struct view, view_type);

	if (view != NULL)
		memset((char *)view + sizeof(PyObject), 0, sizeof(*view) - sizeof(PyObject));
	return view;
}

static int
view_is_shared(const struct view *view)
{
	if (Py_REFCNT((PyObject *)(uintptr_t)view) > 1)
		return 1;
	for (uint32_t id = 0; id < NB_HEADERS; id++)
		if (view->header[id] != NULL && Py_REFCNT((PyObject *)view->header[id]) > 1)
			return 1;
	return 0;
}

/* ---- the loop ---- */

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

/* Let go of the packet; the view serves the next one unless somebody else holds it. */
static int
loop_next_view(struct loop *loop)
{
	if (loop->view != NULL) {
		if (loop->view->data != NULL)
			release_data(loop->view);
		loop->view->pkt = NULL;
		if (!view_is_shared(loop->view))
			return 0;
		Py_DECREF((PyObject *)loop->view);
	}
	loop->view = view_create();
	return loop->view == NULL ? -1 : 0;
}

/* @return 0, or -1 with an exception set */
static int
loop_call(struct loop *loop, struct onvm_ctx *ctx, struct onvm_pkt *pkt)
{
	struct view *view = loop->view;
	PyObject *result;
	long verdict;

	view->pkt = pkt;
	view->ctx = ctx;
	onvm_layout_read(pkt, &view->layout);
	result = PyObject_CallFunctionObjArgs(loop->function, (PyObject *)view, loop->state, NULL);
	if (result == NULL)
		return -1;
	if (result != Py_None) {
		verdict = PyLong_AsLong(result);
		if (verdict == -1 && PyErr_Occurred()) {
			Py_DECREF(result);
			return -1;
		}
		if (verdict < ONVM_NEXT || verdict > ONVM_OUT) {
			PyErr_Format(PyExc_ValueError, "%ld is not a Verdict", verdict);
			Py_DECREF(result);
			return -1;
		}
		pkt->verdict = (uint8_t)verdict;
	}
	Py_DECREF(result);
	return 0;
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

static PyObject *
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

/* A view of a packet that somebody else keeps alive; end_view() makes it stale. */
static PyObject *
packet_view(PyObject *module, PyObject *arguments)
{
	unsigned long long pkt, ctx;
	struct view *view;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "KK", &pkt, &ctx))
		return NULL;
	view = view_create();
	if (view == NULL)
		return NULL;
	view->pkt = (struct onvm_pkt *)(uintptr_t)pkt;
	view->ctx = (struct onvm_ctx *)(uintptr_t)ctx;
	onvm_layout_read(view->pkt, &view->layout);
	return (PyObject *)view;
}

static PyObject *
packet_end_view(PyObject *module, PyObject *argument)
{
	struct view *view = (struct view *)argument;

	(void)module;
	if (!PyObject_TypeCheck(argument, view_type)) {
		PyErr_SetString(PyExc_TypeError, "a PacketView expected");
		return NULL;
	}
	release_data(view);
	view->pkt = NULL;
	Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
	{"loop", packet_loop, METH_VARARGS, NULL},
	{"view", packet_view, METH_VARARGS, NULL},
	{"end_view", packet_end_view, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot view_slots[] = {
	{Py_tp_dealloc, (void *)view_dealloc},
	{Py_tp_getset, view_getset},
	{Py_tp_methods, view_methods},
	{0, NULL},
};
static PyType_Spec view_spec = {"onvm_sdk.packet.PacketView", sizeof(struct view), 0,
				Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, view_slots};
static PyType_Slot loop_slots[] = {
	{Py_tp_dealloc, (void *)loop_dealloc},
	{Py_tp_getset, loop_getset},
	{0, NULL},
};
static PyType_Spec loop_spec = {"onvm_sdk._native._packet.Loop", sizeof(struct loop), 0,
				Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, loop_slots};
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
	stale_error = PyObject_GetAttrString(errors, "StaleViewError");
	Py_DECREF(errors);
	view_type = (PyTypeObject *)PyType_FromSpec(&view_spec);
	loop_type = (PyTypeObject *)PyType_FromSpec(&loop_spec);
	if (stale_error == NULL || view_type == NULL || loop_type == NULL)
		return NULL;
	for (uint32_t header = 0; header < NB_HEADERS; header++) {
		header_type[header] = header_type_create(header);
		if (header_type[header] == NULL)
			return NULL;
	}
	if (PyModule_AddType(module, view_type) < 0 || PyModule_AddType(module, loop_type) < 0)
		return NULL;
	return module;
}
