# mypy: ignore-errors
# numba and llvmlite have no types to check against; test_kernel_tables.py checks this.
"""numba's view of the tables in a kernel's state and of the keys they are asked for.

A table is its address. Its methods become calls of the functions of ``onvm/tables.h``, which are
symbols, not addresses, so that the object code can be kept.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload, overload_method, register_model

from onvm_sdk._compiler import emit
from onvm_sdk._compiler.types import FLOW_KEY, FlowKeyType, emit_alloca
from onvm_sdk.tables import FLOW_KEY_BYTES, MISS

__all__ = ["SYMBOLS", "TableType", "type_of"]


class TableType(types.Type):
    """A table; what its code depends on is in the name."""

    is_onvm_table = True

    def __init__(self, *details: Any) -> None:
        super().__init__(name=f"onvm.{type(self).__name__}{details}")


class AclType(TableType):
    def __init__(self, version: int) -> None:
        super().__init__(version)


class LpmType(TableType):
    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(version)


class FlowTableType(TableType):
    def __init__(self, key_bytes: int, value_bytes: int) -> None:
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        super().__init__(key_bytes, value_bytes)


_TYPES = {"Acl": AclType, "Lpm": LpmType, "FlowTable": FlowTableType}


def type_of(part: Any) -> Any:
    """Give numba's type of a part of a state."""
    kind = getattr(part, "kernel_type", None)
    return numba.typeof(part) if kind is None else _TYPES[kind[0]](*kind[1:])


@register_model(AclType)
@register_model(LpmType)
@register_model(FlowTableType)
class _TableModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, emit.BYTES)


SYMBOLS: list[str] = []
"""The functions that are called."""


def _external(name: str, result: Any, *arguments: Any) -> Any:
    SYMBOLS.append(name)
    return types.ExternalFunction(name, result(types.voidptr, *arguments))


_acl_find = _external("onvm_acl_find", types.uint32, types.voidptr)
_lpm_find4 = _external("onvm_lpm_find4", types.uint32, types.uint32)
_lpm_find6 = _external("onvm_lpm_find6", types.uint32, types.uint64, types.uint64)
_flow_lookup = _external("onvm_flow_table_lookup", types.int32, types.voidptr)
_flow_add = _external("onvm_flow_table_add", types.int32, types.voidptr, types.uint64)
_flow_delete = _external("onvm_flow_table_delete", types.int32, types.voidptr)
_flow_touch = _external("onvm_flow_table_touch", types.void, types.int32, types.uint64)
_flow_value = _external("onvm_flow_table_value", types.voidptr, types.int32)
_flow_next = _external("onvm_flow_table_next", types.int32, types.int32)
_flow_count = _external("onvm_flow_table_count", types.uint32)
_now_ns = types.ExternalFunction("onvm_tables_now_ns", types.uint64())
SYMBOLS.append("onvm_tables_now_ns")


@intrinsic
def _address(typing: Any, table: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return types.voidptr(table), code


@intrinsic
def _key_address(typing: Any, key: Any) -> Any:
    """The place of a key: a flow key on the stack, or an array's data."""

    def flow_key(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = emit_alloca(builder, FLOW_KEY)
        builder.store(arguments[0], place)
        return builder.bitcast(place, emit.BYTES)

    def array(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(key)(context, builder, arguments[0]).data

    return types.voidptr(key), array if isinstance(key, types.Array) else flow_key


def _check_key_type(size: int, key: Any) -> None:
    """Refuse, when it is compiled, a key that no table of keys of `size` bytes can have."""
    if isinstance(key, FlowKeyType):
        if size != FLOW_KEY_BYTES:
            raise TypingError(f"pkt.flow_key has {FLOW_KEY_BYTES} bytes, keys of the table {size}")
    elif not (
        isinstance(key, types.Array)
        and key.ndim == 1
        and key.dtype == types.uint8
        and key.is_c_contig
    ):
        raise TypingError("a key is pkt.flow_key or a C-contiguous array of uint8")


def _check_key(key: Any, size: int) -> None:
    """Refuse an array of another length than `size`."""


@overload(_check_key, strict=False)
def _check_key_of(key: Any, size: Any) -> Any:
    if isinstance(key, FlowKeyType):
        return lambda key, size: None

    def check(key: Any, size: Any) -> None:
        if key.size != size:
            raise ValueError("a key has as many bytes as those of its table")

    return check


def _now(now_ns: Any) -> int:
    """`now_ns`, or what the clock says for None."""


@overload(_now, strict=False)
def _now_of(now_ns: Any) -> Any:
    if now_ns is None or isinstance(now_ns, (types.NoneType, types.Omitted)):
        return lambda now_ns: _now_ns()
    if not isinstance(now_ns, types.Integer):
        raise TypingError("now_ns is an integer, or left out")

    def given(now_ns: Any) -> Any:
        if now_ns < 0:
            raise OverflowError("now_ns is below 0")
        return np.uint64(now_ns)

    return given


@overload_method(AclType, "find", strict=False)
def _find_rule(table: Any, key: Any) -> Any:
    _check_key_type(FLOW_KEY_BYTES, key)

    def find(table: Any, key: Any) -> Any:
        _check_key(key, FLOW_KEY_BYTES)
        value = _acl_find(_address(table), _key_address(key))
        return -1 if value == 0 else np.int64(value)

    return find


@overload_method(LpmType, "find", strict=False)
def _find_route(table: Any, address: Any, low: Any = None) -> Any:
    is_pair = isinstance(low, types.Integer)
    if not isinstance(address, types.Integer) or is_pair != (table.version == 6):
        raise TypingError(
            "an IPv4 address is one number, an IPv6 address two: its upper and lower 64 bits"
        )

    def find4(table: Any, address: Any, low: Any = None) -> Any:
        if address < 0 or address > 0xFFFFFFFF:
            raise ValueError("no IPv4 address")
        value = _lpm_find4(_address(table), np.uint32(address))
        return -1 if value == MISS else np.int64(value)

    def find6(table: Any, address: Any, low: Any = None) -> Any:
        if address < 0 or low < 0:
            raise ValueError("no IPv6 address")
        value = _lpm_find6(_address(table), np.uint64(address), np.uint64(low))
        return -1 if value == MISS else np.int64(value)

    return find6 if is_pair else find4


@overload_method(FlowTableType, "find", strict=False)
def _find_flow(table: Any, key: Any) -> Any:
    size = table.key_bytes
    _check_key_type(size, key)

    def find(table: Any, key: Any) -> Any:
        _check_key(key, size)
        slot = _flow_lookup(_address(table), _key_address(key))
        return max(np.int64(slot), -1)

    return find


@overload_method(FlowTableType, "try_add", strict=False)
def _try_add_flow(table: Any, key: Any, now_ns: Any = None) -> Any:
    size = table.key_bytes
    _check_key_type(size, key)

    def try_add(table: Any, key: Any, now_ns: Any = None) -> Any:
        _check_key(key, size)
        slot = _flow_add(_address(table), _key_address(key), _now(now_ns))
        return max(np.int64(slot), -1)

    return try_add


@overload_method(FlowTableType, "remove", strict=False)
def _remove_flow(table: Any, key: Any) -> Any:
    size = table.key_bytes
    _check_key_type(size, key)

    def remove(table: Any, key: Any) -> bool:
        _check_key(key, size)
        return _flow_delete(_address(table), _key_address(key)) >= 0

    return remove


def _check_slot(table: Any, slot: Any) -> None:
    """Refuse a slot that no flow has."""


@overload(_check_slot, strict=False)
def _check_slot_of(table: Any, slot: Any) -> Any:
    def check(table: Any, slot: Any) -> None:
        if slot < 0 or _flow_next(_address(table), np.int32(slot)) != slot:
            raise KeyError("no flow has this slot")

    return check


@overload_method(FlowTableType, "touch", strict=False)
def _touch_flow(table: Any, slot: Any, now_ns: Any = None) -> Any:
    def touch(table: Any, slot: Any, now_ns: Any = None) -> None:
        _check_slot(table, slot)
        _flow_touch(_address(table), np.int32(slot), _now(now_ns))

    return touch


@overload_method(FlowTableType, "value", strict=False)
def _value_of_flow(table: Any, slot: Any) -> Any:
    size = table.value_bytes

    def value(table: Any, slot: Any) -> Any:
        _check_slot(table, slot)
        return numba.carray(_flow_value(_address(table), np.int32(slot)), size, np.uint8)

    return value


@overload(len, strict=False)
def _count_flows(table: Any) -> Any:
    if isinstance(table, FlowTableType):
        return lambda table: np.int64(_flow_count(_address(table)))
    return None
