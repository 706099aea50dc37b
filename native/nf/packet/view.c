/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/view.h"

#include <errno.h>

#include <onvm/rare.h>
#include <onvm/tuple.h>

#include "columns.h"
#include "frame.h"
#include "packet/header.h"
#include "packet/stale.h"
#include "packet/verdict.h"

PyTypeObject *packet_view_type;

static struct view *
live(PyObject *self)
{
	struct view *view = (struct view *)self;

	if (packet_is_stale(view)) {
		packet_raise_stale();
		return NULL;
	}
	return view;
}

static PyObject *
view_header(PyObject *self, void *closure)
{
	struct view *view = (struct view *)self;
	const uintptr_t id = (uintptr_t)closure;
	struct header *header = view->header[id];

	if (header == NULL) {
		header = packet_header_create(view, (uint32_t)id);
		if (header == NULL)
			return NULL;
		view->header[id] = header;
		view->has_rare |= id >= NB_LAYOUT_HEADERS;
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

static PyObject *
view_has_rare(PyObject *self, void *closure)
{
	const struct view *view = live(self);

	if (view == NULL)
		return NULL;
	return PyBool_FromLong(
		onvm_rare_header(view->pkt, &view->layout, (uint32_t)(uintptr_t)closure) != NULL);
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
	TAILROOM,
	L3_OFFSET,
	L4_OFFSET
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
		return packet_verdict(view->pkt->verdict);
	case DESTINATION:
		value = view->pkt->destination;
		break;
	case HEADROOM:
		value = view->pkt->headroom;
		break;
	case TAILROOM:
		value = view->pkt->tailroom;
		break;
	case L3_OFFSET:
		value = view->layout.l3;
		break;
	case L4_OFFSET:
		value = view->layout.l4;
		break;
	}
	return PyLong_FromUnsignedLong(value);
}

static PyObject *
view_flow_key(PyObject *self, void *closure)
{
	const struct view *view = live(self);
	struct onvm_tuple key;

	(void)closure;
	if (view == NULL)
		return NULL;
	onvm_tuple_read(view->pkt, &view->layout, &key);
	return PyBytes_FromStringAndSize((const char *)&key, sizeof(key));
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

static PyObject *
view_payload(PyObject *self, void *closure)
{
	struct view *view = live(self);
	uint32_t payload;

	(void)closure;
	if (view == NULL)
		return NULL;
	if (view->payload == NULL) {
		payload = onvm_pkt_payload(view->pkt);
		view->payload = PyMemoryView_FromMemory((char *)view->pkt->data + (payload >> 16),
							(Py_ssize_t)(payload & 0xffff),
							PyBUF_WRITE);
	}
	Py_XINCREF(view->payload);
	return view->payload;
}

static PyObject *
view_now_ns(PyObject *self, void *closure)
{
	const struct view *view = live(self);

	(void)closure;
	if (view == NULL)
		return NULL;
	return PyLong_FromUnsignedLongLong(view->ctx == NULL ? 0 : view->ctx->now_ns);
}

static PyObject *
view_time_ns(PyObject *self, void *closure)
{
	const struct view *view = live(self);

	(void)closure;
	if (view == NULL)
		return NULL;
	return PyLong_FromUnsignedLongLong(
		view->ctx == NULL ? 0 : onvm_pkt_time_ns(view->ctx, view->pkt));
}

/* The counters as a sequence of numbers; it is made at each use, so that none outlives a manager. */
static PyObject *
view_counters(PyObject *self, void *closure)
{
	const struct view *view = live(self);
	PyObject *bytes, *words;

	(void)closure;
	if (view == NULL)
		return NULL;
	if (view->ctx == NULL) {
		PyErr_SetString(PyExc_AttributeError,
				"a packet outside of a burst has no counters");
		return NULL;
	}
	bytes = PyMemoryView_FromMemory((char *)view->ctx->counters,
					ONVM_COUNTERS_MAX * sizeof(uint64_t), PyBUF_WRITE);
	if (bytes == NULL)
		return NULL;
	words = PyObject_CallMethod(bytes, "cast", "s", "Q");
	Py_DECREF(bytes);
	return words;
}

static void
release_memory(PyObject **memory)
{
	PyObject *result;

	if (*memory == NULL)
		return;
	result = PyObject_CallMethod(*memory, "release", NULL);
	if (result == NULL)
		PyErr_Clear();
	Py_XDECREF(result);
	Py_CLEAR(*memory);
}

/* The memoryviews of the packet end; one that is exported further cannot be, and is let go. */
static void
release_data(struct view *view)
{
	release_memory(&view->data);
	release_memory(&view->payload);
}

/* A number from an int or what can stand for one, such as an entry of an array. */
static unsigned long
number_of(PyObject *object)
{
	PyObject *integer = PyNumber_Index(object);
	unsigned long number = integer == NULL ? (unsigned long)-1 : PyLong_AsUnsignedLong(integer);

	Py_XDECREF(integer);
	return number;
}

static PyObject *
view_move(PyObject *self, PyObject *argument, uint8_t *(*move)(struct onvm_pkt *, uint16_t))
{
	struct view *view = live(self);
	unsigned long length;

	if (view == NULL)
		return NULL;
	length = number_of(argument);
	if (length == (unsigned long)-1 && PyErr_Occurred())
		return NULL;
	if (length > UINT16_MAX || move(view->pkt, (uint16_t)length) == NULL)
		Py_RETURN_FALSE;
	release_data(view);
	view->layout = onvm_layout_of(view->pkt);
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
view_append(PyObject *self, PyObject *argument)
{
	struct view *view = live(self);
	Py_buffer bytes;
	uint8_t *end;

	if (view == NULL || PyObject_GetBuffer(argument, &bytes, PyBUF_SIMPLE) < 0)
		return NULL;
	end = bytes.len > UINT16_MAX ? NULL : onvm_pkt_append(view->pkt, (uint16_t)bytes.len);
	if (end != NULL)
		memcpy(end, bytes.buf, (size_t)bytes.len);
	PyBuffer_Release(&bytes);
	if (end == NULL)
		Py_RETURN_FALSE;
	release_data(view);
	view->layout = onvm_layout_of(view->pkt);
	Py_RETURN_TRUE;
}

static uint8_t *
trim(struct onvm_pkt *pkt, uint16_t length)
{
	return onvm_pkt_trim(pkt, length) ? pkt->data : NULL;
}

static PyObject *
view_trim(PyObject *self, PyObject *argument)
{
	return view_move(self, argument, trim);
}

static PyObject *
view_update_checksums(PyObject *self, PyObject *unused)
{
	const struct view *view = live(self);

	(void)unused;
	if (view == NULL)
		return NULL;
	onvm_pkt_make_checksums(view->pkt);
	Py_RETURN_NONE;
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
		destination = number_of(arguments[0]);
		if (destination == (unsigned long)-1 && PyErr_Occurred())
			return NULL;
	}
	if (destination > UINT16_MAX) {
		PyErr_SetString(PyExc_OverflowError, "a reason, port or service ID is below 65536");
		return NULL;
	}
	view->pkt->verdict = verdict;
	view->pkt->destination = (uint16_t)destination;
	return packet_verdict(verdict);
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
view_hold(PyObject *self, PyObject *unused)
{
	struct view *view = live(self);

	(void)unused;
	if (view == NULL)
		return NULL;
	if (view->held != NULL) {
		PyErr_SetString(PyExc_RuntimeError, "the packet is held already");
		return NULL;
	}
	if (view->ctx == NULL || view->ctx->held_packets == NULL) {
		PyErr_SetString(PyExc_PermissionError, "expected held_packets in the manifest");
		return NULL;
	}
	return PyLong_FromUnsignedLong(onvm_held_add(view->ctx->held_packets, view->pkt));
}

static PyObject *
view_release(PyObject *self, PyObject *arguments)
{
	const struct view *view = live(self);
	unsigned int token, verdict = ONVM_NEXT, destination = 0;

	if (view == NULL || !PyArg_ParseTuple(arguments, "I|II", &token, &verdict, &destination))
		return NULL;
	if (verdict > ONVM_OUT || destination > UINT16_MAX) {
		PyErr_SetString(PyExc_OverflowError, "a reason, port or service ID is below 65536");
		return NULL;
	}
	return PyBool_FromLong(
		view->ctx != NULL &&
		onvm_held_release(view->ctx->held_packets, token, verdict, destination) == 0);
}

static PyObject *
view_originate(PyObject *self, PyObject *arguments)
{
	const struct view *view = live(self);
	unsigned int verdict = ONVM_NEXT, destination = 0;
	Py_buffer bytes;
	int result;

	if (view == NULL || !PyArg_ParseTuple(arguments, "y*|II", &bytes, &verdict, &destination))
		return NULL;
	result = view->ctx == NULL	? -EPERM :
		 bytes.len > UINT16_MAX ? -EMSGSIZE :
					  onvm_originate(view->ctx, bytes.buf, (uint32_t)bytes.len,
							 verdict, destination);
	PyBuffer_Release(&bytes);
	if (result == -EPERM) {
		PyErr_SetString(PyExc_PermissionError,
				"expected the permission originate in the manifest");
		return NULL;
	}
	return PyBool_FromLong(result == 0);
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
#define RARE(name, is_name, id)                                             \
	HEADER(name, RARE_OBJECT(id)),                                      \
	{                                                                   \
		is_name, view_has_rare, NULL, NULL, (void *)(uintptr_t)(id) \
	}
static PyGetSetDef view_getset[] = {
	HEADER("eth", ONVM_H_ETH),
	HEADER("vlan", ONVM_H_VLAN),
	HEADER("ipv4", ONVM_H_IPV4),
	HEADER("ipv6", ONVM_H_IPV6),
	HEADER("tcp", ONVM_H_TCP),
	HEADER("udp", ONVM_H_UDP),
	HEADER("icmp", ONVM_H_ICMP),
	RARE("arp", "is_arp", ONVM_H_ARP),
	RARE("mpls", "is_mpls", ONVM_H_MPLS),
	RARE("pppoe", "is_pppoe", ONVM_H_PPPOE),
	RARE("sctp", "is_sctp", ONVM_H_SCTP),
	RARE("gre", "is_gre", ONVM_H_GRE),
	RARE("vxlan", "is_vxlan", ONVM_H_VXLAN),
	RARE("geneve", "is_geneve", ONVM_H_GENEVE),
	RARE("gtpu", "is_gtpu", ONVM_H_GTPU),
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
	OWN("l3_offset", L3_OFFSET),
	OWN("l4_offset", L4_OFFSET),
	{"flow_key", view_flow_key, NULL, NULL, NULL},
	{"data", view_data, NULL, NULL, NULL},
	{"payload", view_payload, NULL, NULL, NULL},
	{"now_ns", view_now_ns, NULL, NULL, NULL},
	{"time_ns", view_time_ns, NULL, NULL, NULL},
	{"counters", view_counters, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef view_methods[] = {
	{"push", view_push, METH_O, NULL},
	{"pull", view_pull, METH_O, NULL},
	{"append", view_append, METH_O, NULL},
	{"trim", view_trim, METH_O, NULL},
	{"update_checksums", view_update_checksums, METH_NOARGS, NULL},
	{"tobytes", view_tobytes, METH_NOARGS, NULL},
	{"drop", (PyCFunction)(void (*)(void))view_drop, METH_FASTCALL, NULL},
	{"out", (PyCFunction)(void (*)(void))view_out, METH_FASTCALL, NULL},
	{"to_service", (PyCFunction)(void (*)(void))view_to_service, METH_FASTCALL, NULL},
	{"hold", view_hold, METH_NOARGS, NULL},
	{"release", view_release, METH_VARARGS, NULL},
	{"originate", view_originate, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

struct view *
packet_view_create(void)
{
	struct view *view = PyObject_New(struct view, packet_view_type);

	if (view != NULL)
		memset((char *)view + sizeof(PyObject), 0, sizeof(*view) - sizeof(PyObject));
	return view;
}

int
packet_view_is_shared(const struct view *view)
{
	const uint32_t nb = view->has_rare ? NB_HEADERS : NB_LAYOUT_HEADERS;

	if (Py_REFCNT((PyObject *)(uintptr_t)view) > 1)
		return 1;
	for (uint32_t id = 0; id < nb; id++)
		if (view->header[id] != NULL && Py_REFCNT((PyObject *)view->header[id]) > 1)
			return 1;
	return 0;
}

void
packet_view_end(struct view *view)
{
	if (view->data != NULL || view->payload != NULL)
		release_data(view);
	view->pkt = NULL;
	view->held = NULL;
}

static PyType_Slot view_slots[] = {
	{Py_tp_dealloc, (void *)view_dealloc},
	{Py_tp_getset, view_getset},
	{Py_tp_methods, view_methods},
	{0, NULL},
};
static PyType_Spec view_spec = {"onvm_sdk.packet.PacketView", sizeof(struct view), 0,
				Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, view_slots};

int
packet_views_create(PyObject *module)
{
	packet_view_type = (PyTypeObject *)PyType_FromSpec(&view_spec);
	return packet_view_type == NULL ? -1 : PyModule_AddType(module, packet_view_type);
}
