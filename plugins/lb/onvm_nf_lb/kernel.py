# SPDX-License-Identifier: Apache-2.0
"""The load balancer's C kernel: allocate, call, check, convert."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from onvm_nf_lb import _lb  # type: ignore[attr-defined]  # compiled
from onvm_nf_lb.config import LbConfig
from onvm_nf_lb.model import permutation
from onvm_sdk import NativeKernel
from onvm_sdk.errors import ConfigError, NativeError, check
from onvm_sdk.limits import ADDRESS_BYTES

__all__ = ["Balancer", "Converted", "convert", "fill_table"]

_ffi: Any = _lb.ffi
_lib: Any = _lb.lib
_NS = 1_000_000_000

Converted = tuple[Any, list[Any]]


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
        given, self._kept = convert(config)
        state = _lib.lb_create(given)
        if state == _ffi.NULL:
            raise NativeError(_ffi.errno, "build the tables of the load balancer")
        self._state = _ffi.gc(state, _lib.lb_free)
        self._max_connections = config.settings.max_connections

    @property
    def max_connections(self) -> int:
        """The size of its table, which `update` leaves as it is."""
        return self._max_connections

    def update(self, converted: Converted) -> None:
        """Use other VIPs and backends. Connections stay where they are, but those of UDP
        to removed backends end.

        Threads: call it in the thread of the kernel, between bursts.
        """
        given, kept = converted
        check(_lib.lb_update(self._state, given), "change the load balancer's VIPs")
        self._kept = kept

    def tick(self, now_ns: int) -> None:
        """Forget connections whose time is over, whether or not packets come.

        Threads: call it in the thread of the kernel, between bursts.
        """
        _lib.lb_tick(self._state, now_ns)

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

    def take_over(self, other: Balancer, now_ns: int) -> None:
        """Take the connections of one with other VIPs; those without a backend are marked.

        Raises:
            ConfigError: there are more connections than the table can hold; nothing has changed.
        """
        if _lib.lb_nb_connections(other._state) > self._max_connections:
            raise ConfigError(
                "expected as much as there are connections",
                field="max_connections",
                value=self._max_connections,
            )
        self.restore(other.save(now_ns), now_ns)

    @property
    def kernel(self) -> NativeKernel:
        function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "lb_burst"))
        return NativeKernel(int(function), int(_ffi.cast("uintptr_t", self._state)), self)


def convert(config: LbConfig) -> Converted:
    """Return the native configuration, and the objects that must live as long as it is used."""
    text = config.settings
    vips: list[dict[str, Any]] = []
    backends: list[dict[str, Any]] = []
    tables: dict[tuple[tuple[str, int], ...], Any] = {}  # VIPs with equal backends share one
    for vip in config.vips:
        order = sorted(zip(vip.names, vip.backends, strict=True), key=lambda pair: pair[0])
        shares = tuple((name, backend.weight) for name, backend in order)
        if shares not in tables:
            tables[shares] = _table(shares, text.table_size)
        vips.append(
            {
                "address": vip.address.packed.ljust(ADDRESS_BYTES, b"\0"),
                "ip_version": vip.address.version,
                "protocol": vip.protocol,
                "port": vip.port.to_bytes(2, "big"),
                "by_client": vip.by_client,
                "first_backend": len(backends),
                "nb_backends": len(order),
                "table_size": text.table_size,
                "table": tables[shares],
            }
        )
        backends.extend(
            {
                "address": backend.address.packed.ljust(ADDRESS_BYTES, b"\0"),
                "port": backend.port.to_bytes(2, "big"),
            }
            for _, backend in order
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
            "idle_ns": [
                seconds * _NS
                for seconds in (
                    text.tcp_closing_s,
                    text.opening_s,
                    text.udp_s,
                    text.tcp_established_s,
                )
            ],
            "rejects": text.reject,
        },
    )
    return given, [*tables.values(), *arrays]


def _table(shares: Sequence[tuple[str, int]], size: int) -> Any:
    """The lookup table of backends by name and weight; NULL if none gets anything."""
    if not any(weight for _, weight in shares):
        return _ffi.NULL
    permutations = [permutation(name, size) for name, _ in shares]
    return fill_table(permutations, size, [weight for _, weight in shares])
