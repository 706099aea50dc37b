/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/verdict.h"

#define NB_VERDICTS (ONVM_HOLD + 1)

static PyObject *members[NB_VERDICTS];

/* At the first use: the module that has them takes a millisecond of the start of an NF. */
static int
find_members(void)
{
	PyObject *module = PyImport_ImportModule("onvm_sdk.verdict");
	PyObject *kind = module == NULL ? NULL : PyObject_GetAttrString(module, "Verdict");

	Py_XDECREF(module);
	for (long number = 0; kind != NULL && number < NB_VERDICTS; number++) {
		members[number] = PyObject_CallFunction(kind, "l", number);
		if (members[number] == NULL)
			Py_CLEAR(kind);
	}
	Py_XDECREF(kind);
	return kind == NULL ? -1 : 0;
}

PyObject *
packet_verdict(uint8_t verdict)
{
	if (verdict >= NB_VERDICTS)
		return PyLong_FromLong(verdict);
	if (members[NB_VERDICTS - 1] == NULL && find_members() < 0)
		return NULL;
	return Py_NewRef(members[verdict]);
}

int
packet_verdict_returned(PyObject *result, uint8_t *verdict)
{
	long number = -1;

	if (result == Py_None)
		return 0;
	/* True would be a drop: who returns it means something else. */
	if (PyIndex_Check(result) && !PyBool_Check(result))
		number = PyLong_AsLong(result);
	if (number == -1)
		PyErr_Clear();
	if (number < ONVM_NEXT || number >= NB_VERDICTS) {
		PyErr_Format(PyExc_TypeError, "returned %R, expected a Verdict or None", result);
		return -1;
	}
	if (number == ONVM_HOLD && *verdict != ONVM_HOLD) {
		PyErr_SetString(PyExc_TypeError,
				"returned Verdict.HOLD, expected a call of pkt.hold() before");
		return -1;
	}
	*verdict = (uint8_t)number;
	return 1;
}
