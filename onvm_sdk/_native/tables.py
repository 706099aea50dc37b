# SPDX-License-Identifier: Apache-2.0
"""The calls of ``onvm/tables.h``: allocate, call, check, convert."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from onvm_sdk._native import _tables
from onvm_sdk.errors import NativeError, check

_ffi: Any = _tables.ffi
_lib: Any = _tables.lib

MISS: int = _lib.ONVM_TABLE_MISS


def address(handle: Any) -> int:
    """Give the address of a table, for compiled kernels."""
    return int(_ffi.cast("uintptr_t", handle))


def init(megabytes: int) -> None:
    check(_lib.onvm_tables_init(megabytes), "start DPDK's environment")


def _created(handle: Any, free: Any, action: str) -> Any:
    if handle == _ffi.NULL:
        raise NativeError(_ffi.errno, action)
    return _ffi.gc(handle, free)


def release(handle: Any) -> None:
    """Free a table now instead of when it is collected."""
    _ffi.release(handle)


def acl_create(ip_version: int, rules: list[dict[str, Any]]) -> Any:
    array = _ffi.new("struct onvm_acl_rule[]", rules)
    handle = _lib.onvm_acl_create(ip_version, array, len(rules))
    return _created(handle, _lib.onvm_acl_free, f"build an ACL of {len(rules)} rules")


def acl_lookup(handle: Any, tuples: Any, values: Any, length: int) -> None:
    keys = _ffi.from_buffer("struct onvm_tuple[]", tuples)
    out = _ffi.from_buffer("uint32_t[]", values, require_writable=True)
    check(_lib.onvm_acl_lookup(handle, keys, out, length), "look up in an ACL")


def lpm_create(ip_version: int, max_routes: int) -> Any:
    handle = _lib.onvm_lpm_create(ip_version, max_routes)
    return _created(handle, _lib.onvm_lpm_free, f"make an LPM table of {max_routes} routes")


def lpm_add(handle: Any, prefix: bytes, depth: int, value: int) -> None:
    check(_lib.onvm_lpm_add(handle, prefix, depth, value), "add a route")


def lpm_delete(handle: Any, prefix: bytes, depth: int) -> None:
    check(_lib.onvm_lpm_delete(handle, prefix, depth), "remove a route")


def lpm_lookup(handle: Any, addresses: Any, values: Any, length: int) -> None:
    keys = _ffi.from_buffer("uint8_t[]", addresses)
    out = _ffi.from_buffer("uint32_t[]", values, require_writable=True)
    check(_lib.onvm_lpm_lookup(handle, keys, out, length), "look up in an LPM table")


def flow_create(capacity: int, key_bytes: int, value_bytes: int) -> Any:
    handle = _lib.onvm_flow_table_create(capacity, key_bytes, value_bytes)
    return _created(handle, _lib.onvm_flow_table_free, f"make a table of {capacity} flows")


def flow_lookup(handle: Any, key: bytes) -> int:
    return int(_lib.onvm_flow_table_lookup(handle, key))


def flow_lookup_bulk(handle: Any, keys: Any, slots: Any, length: int) -> None:
    out = _ffi.from_buffer("int32_t[]", slots, require_writable=True)
    _lib.onvm_flow_table_lookup_bulk(handle, _ffi.from_buffer(keys), out, length)


def flow_add(handle: Any, key: bytes, now_ns: int) -> int:
    return check(_lib.onvm_flow_table_add(handle, key, now_ns), "add a flow")


def flow_try_add(handle: Any, key: bytes, now_ns: int) -> int:
    slot = int(_lib.onvm_flow_table_add(handle, key, now_ns))
    return -1 if slot == -errno.ENOSPC else check(slot, "add a flow")


def flow_add_bulk(handle: Any, keys: Any, slots: Any, length: int, now_ns: int) -> None:
    out = _ffi.from_buffer("int32_t[]", slots, require_writable=True)
    _lib.onvm_flow_table_add_bulk(handle, _ffi.from_buffer(keys), out, length, now_ns)


def flow_delete(handle: Any, key: bytes) -> bool:
    return bool(_lib.onvm_flow_table_delete(handle, key) == 0)


def flow_value(handle: Any, slot: int, value_bytes: int) -> memoryview:
    return memoryview(_ffi.buffer(_lib.onvm_flow_table_value(handle, slot), value_bytes))


def flow_key(handle: Any, slot: int, key_bytes: int) -> bytes | None:
    key = _lib.onvm_flow_table_key(handle, slot)
    return None if key == _ffi.NULL else bytes(_ffi.buffer(key, key_bytes))


def flow_next(handle: Any, slot: int) -> int:
    return int(_lib.onvm_flow_table_next(handle, slot))


def flow_used_ns(handle: Any, slot: int) -> int:
    return int(_lib.onvm_flow_table_used_ns(handle, slot))


def flow_touch(handle: Any, slot: int, now_ns: int) -> None:
    _lib.onvm_flow_table_touch(handle, slot, now_ns)


def flow_set_idle(handle: Any, slot: int, idle_ns: int) -> None:
    _lib.onvm_flow_table_set_idle(handle, slot, idle_ns)


def flow_expire(
    handle: Any,
    now_ns: int,
    idle_ns: int,
    budget: int,
    on_expired: Callable[[int], None] | None,
) -> int:
    if on_expired is None:
        call = _ffi.NULL
    else:
        # An exception in it goes to sys.unraisablehook; the flow is deleted all the same.
        call = _ffi.callback("void(void *, int32_t)", lambda _arg, slot: on_expired(slot))
    return int(_lib.onvm_flow_table_expire(handle, now_ns, idle_ns, budget, call, _ffi.NULL))


def flow_count(handle: Any) -> int:
    return int(_lib.onvm_flow_table_count(handle))
