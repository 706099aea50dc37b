/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/header.h"

#include <onvm/rare.h>

#include "packet/stale.h"

static PyTypeObject *header_type[NB_HEADERS];

static const struct onvm_field fields[ONVM_FIELD_COUNT] = {
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable) \
	{ONVM_H_##header, offset, bytes, shift, bits, sums, writable},
	ONVM_FIELDS(ONVM_X)
#undef ONVM_X
};

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

	if (view == NULL || packet_is_stale(view)) {
		packet_raise_stale();
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

	if (view == NULL || packet_is_stale(view))
		return packet_raise_stale();
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

static PyObject *
rare_get(PyObject *self, void *closure)
{
	const struct onvm_field *field = closure;
	struct view *view = ((struct header *)self)->view;

	if (view == NULL || packet_is_stale(view)) {
		packet_raise_stale();
		return NULL;
	}
	return PyLong_FromUnsignedLongLong(onvm_rare_load(view->pkt, &view->layout, field));
}

static int
rare_set(PyObject *self, PyObject *value, void *closure)
{
	const struct onvm_field *field = closure;
	struct view *view = ((struct header *)self)->view;
	uint64_t word;

	if (view == NULL || packet_is_stale(view))
		return packet_raise_stale();
	if (value == NULL) {
		PyErr_SetString(PyExc_AttributeError, "a header field cannot be deleted");
		return -1;
	}
	word = PyLong_AsUnsignedLongLongMask(value);
	if (word == UINT64_MAX && PyErr_Occurred())
		return -1;
	onvm_rare_store(view->pkt, &view->layout, field, word);
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

#define RARE_SET_0 NULL
#define RARE_SET_1 rare_set
#define ONVM_X(header, name, offset, bytes, shift, bits, sums, writable) \
	{#name, rare_get, RARE_SET_##writable, NULL, NULL},
/* Their closures are set at start-up: the table of fields lies in another library. */
static PyGetSetDef rare_fields[] = {ONVM_RARE_FIELDS(ONVM_X){NULL, NULL, NULL, NULL, NULL}};
#undef ONVM_X

static PyGetSetDef header_getset[NB_HEADERS][ONVM_FIELD_COUNT + 1];
static const char *const header_name[NB_HEADERS] = {
	"onvm_sdk.packet.EthHeader",   "onvm_sdk.packet.VlanHeader",   "onvm_sdk.packet.Ipv4Header",
	"onvm_sdk.packet.Ipv6Header",  "onvm_sdk.packet.TcpHeader",    "onvm_sdk.packet.UdpHeader",
	"onvm_sdk.packet.IcmpHeader",  "onvm_sdk.packet.ArpHeader",    "onvm_sdk.packet.MplsHeader",
	"onvm_sdk.packet.PppoeHeader", "onvm_sdk.packet.SctpHeader",   "onvm_sdk.packet.GreHeader",
	"onvm_sdk.packet.VxlanHeader", "onvm_sdk.packet.GeneveHeader", "onvm_sdk.packet.GtpuHeader",
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
	for (uint32_t id = 0; id < ONVM_RARE_COUNT; id++) {
		const struct onvm_field *field = onvm_rare_field(id);

		if (RARE_OBJECT(field->header) != header)
			continue;
		*next = rare_fields[id];
		next++->closure = (void *)(uintptr_t)field;
	}
	return (PyTypeObject *)PyType_FromSpec(&spec);
}

int
packet_headers_create(void)
{
	for (uint32_t header = 0; header < NB_HEADERS; header++) {
		header_type[header] = header_type_create(header);
		if (header_type[header] == NULL)
			return -1;
	}
	return 0;
}

struct header *
packet_header_create(struct view *view, uint32_t id)
{
	struct header *header = PyObject_New(struct header, header_type[id]);

	if (header != NULL)
		header->view = view;
	return header;
}
