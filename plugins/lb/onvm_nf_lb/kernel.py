# SPDX-License-Identifier: Apache-2.0
"""The load balancer's C kernel: allocate, call, check, convert."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from onvm_nf_lb import _lb  # type: ignore[attr-defined]  # compiled
from onvm_nf_lb.config import LbConfig, Vip
from onvm_nf_lb.model import permutation
from onvm_sdk import NativeKernel
from onvm_sdk.errors import NativeError, check
from onvm_sdk.limits import ADDRESS_BYTES

__all__ = ["Balancer", "fill_table"]

_ffi: Any = _lb.ffi
_lib: Any = _lb.lib
_NS = 1_000_000_000


def fill_table(permutations: Sequence[tuple[int, int]], size: int, weights: Sequence[int]) -> Any:
    """Fill a lookup table from (offset, skip) of each backend: `model.maglev_fill` in C."""
    table = _ffi.new("uint32_t[]", size)
    offsets, skips = zip(*permutations, strict=True)
    rc = _lib.lb_maglev_fill(offsets, skips, list(weights), len(permutations), size, table)
    check(rc, f"fill a lookup table of {size} slots")
    return table


class Balancer:
    """The native state, and the objects it points to.

    Raises:
        NativeError: the tables do not fit into memory.
    """

    def __init__(self, config: LbConfig) -> None:
        given, self._kept = _convert(config)
        state = _lib.lb_create(given)
        if state == _ffi.NULL:
            raise NativeError(_ffi.errno, "build the tables of the load balancer")
        self._state = _ffi.gc(state, _lib.lb_free)

    def update(self, config: LbConfig) -> None:
        """Use other VIPs and backends. Connections stay where they are.

        Threads: call it in the thread of the kernel, between bursts.
        """
        given, kept = _convert(config)
        check(_lib.lb_update(self._state, given), "change the load balancer's VIPs")
        self._kept = kept

    def save(self, now_ns: int) -> bytes:
        """Return all connections as bytes, for an NF host with the same byte order and layout."""
        count = _lib.lb_nb_connections(self._state)
        saved = _ffi.new("struct lb_saved[]", count)
        count = _lib.lb_save(self._state, saved, count, now_ns)
        return bytes(_ffi.buffer(saved, count * _ffi.sizeof("struct lb_saved")))

    def restore(self, state: bytes, now_ns: int) -> None:
        """Take over connections from `save`.

        Raises:
            NativeError: the table is too small, or the bytes are damaged. Nothing has changed then.
        """
        count, rest = divmod(len(state), _ffi.sizeof("struct lb_saved"))
        saved = _ffi.new("struct lb_saved[]", count)
        _ffi.memmove(saved, state, len(state) - rest)
        rc = -errno.EINVAL if rest else _lib.lb_restore(self._state, saved, count, now_ns)
        check(rc, f"take over {count} connections")

    @property
    def kernel(self) -> NativeKernel:
        function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "lb_burst"))
        return NativeKernel(int(function), int(_ffi.cast("uintptr_t", self._state)), self)


def _convert(config: LbConfig) -> tuple[Any, list[Any]]:
    """Return the native configuration, and the objects that must live as long as it is used."""
    text = config.settings
    vips: list[dict[str, Any]] = []
    backends: list[dict[str, Any]] = []
    kept: list[Any] = []
    for vip in config.vips:
        entry = _native_vip(vip, text.table_size)
        kept.append(entry["table"])
        vips.append({**entry, "first_backend": len(backends)})
        backends.extend(
            {
                "address": b.address.packed.ljust(ADDRESS_BYTES, b"\0"),
                "port": b.port.to_bytes(2, "big"),
            }
            for b in sorted(vip.backends, key=lambda b: b.name)
        )
    arrays = _ffi.new("struct lb_vip[]", vips), _ffi.new("struct lb_backend[]", backends)
    given = _ffi.new(
        "struct lb_config *",
        {
            "vips": arrays[0],
            "backends": arrays[1],
            "nb_vips": len(vips),
            "nb_backends": len(backends),
            "max_connections": text.max_connections,
            "tcp_established_ns": text.tcp_established_s * _NS,
            "tcp_transitory_ns": text.tcp_transitory_s * _NS,
            "udp_ns": text.udp_s * _NS,
        },
    )
    return given, [*kept, *arrays]


def _native_vip(vip: Vip, size: int) -> dict[str, Any]:
    order = sorted(vip.backends, key=lambda backend: backend.name)
    table = _ffi.NULL
    if order:
        table = fill_table(
            [permutation(b.name, size) for b in order], size, [b.weight for b in order]
        )
    return {
        "address": vip.address.packed.ljust(ADDRESS_BYTES, b"\0"),
        "ip_version": vip.address.version,
        "protocol": vip.protocol,
        "port": vip.port.to_bytes(2, "big"),
        "by_client": vip.by_client,
        "nb_backends": len(order),
        "table_size": size,
        "table": table,
    }
