# SPDX-License-Identifier: Apache-2.0
"""The load balancer's C kernel: allocate, call, check, convert."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from onvm_nf_lb import _lb  # type: ignore[attr-defined]  # compiled
from onvm_nf_lb.config import LbConfig, Vip
from onvm_nf_lb.model_maglev import permutation
from onvm_nf_lb.shares import Shares, initial_shares
from onvm_sdk import NativeKernel
from onvm_sdk.errors import ConfigError, NativeError, check
from onvm_sdk.limits import ADDRESS_BYTES

__all__ = ["Balancer", "Plan", "Usage", "fill_table", "read_usages"]

_ffi: Any = _lb.ffi
_lib: Any = _lb.lib
_NS = 1_000_000_000
_FORWARDS = ("nat", "dsr", "ipip", "gue")
_T = TypeVar("_T")
_Weights = tuple[tuple[str, int], ...]


class Usage(NamedTuple):
    """What a backend of a VIP carries; packets and bytes are those to it and those from it."""

    opened: int
    current: int
    packets: tuple[int, int]
    size: tuple[int, int]


def fill_table(permutations: Sequence[tuple[int, int]], size: int, weights: Sequence[int]) -> Any:
    """Fill a lookup table from (offset, skip) of each backend: `maglev_fill` in C."""
    table = _ffi.new("uint32_t[]", size)
    offsets, skips = zip(*permutations, strict=True)
    rc = _lib.lb_maglev_fill(offsets, skips, list(weights), len(permutations), size, table)
    check(rc, f"fill a lookup table of {size} slots")
    return table


def read_usages(usages: bytes) -> list[Usage]:
    """Read what `Balancer.usage_bytes` has copied, in the order of `Plan.backends`."""
    rows = _ffi.from_buffer("struct lb_usage[]", usages)
    return [Usage(row.opened, row.current, tuple(row.packets), tuple(row.bytes)) for row in rows]


class Plan:
    """VIPs, backends and shares, ready for the kernel.

    Threads: any may make one; it takes milliseconds for each lookup table that changes.

    Args:
        before: a plan whose objects may be used again where they are the same.
    """

    def __init__(self, config: LbConfig, shares: Shares, before: Plan | None = None) -> None:
        self.config = config
        self.shares = shares
        if before is not None and before.config is config:
            self.given, self.order, self._kept = before.given, before.order, before._kept
        else:
            self.order = [_sorted(vip) for vip in config.vips]
            self.given, self._kept = _convert(config, self.order)
        size = config.settings.table_size
        known = before._tables if before is not None and before._size == size else {}
        self._size = size
        self._tables: dict[_Weights, Any] = {}
        chosen = []
        for vip, order, listed in zip(config.vips, self.order, shares, strict=True):
            names = vip.names
            weights = tuple((names[i], listed[i].weight) for i in order)
            if weights not in self._tables:
                found = known.get(weights)
                self._tables[weights] = _table(weights, size) if found is None else found
            chosen.append(self._tables[weights])
        self.tables = _ffi.new("uint32_t *[]", chosen or 1)
        self.healths = _ffi.new("uint8_t[]", self.in_order(shares, lambda share: share.health) or 1)

    def in_order(self, listed: Sequence[Sequence[_T]], value: Callable[[_T], int]) -> list[int]:
        """Give a value of each backend in the order of the kernel."""
        return [
            value(values[i])
            for order, values in zip(self.order, listed, strict=True)
            for i in order
        ]

    @property
    def backends(self) -> list[tuple[int, int]]:
        """Numbers of the VIP and of the backend in it, in the order of the kernel."""
        return [(vip, i) for vip, order in enumerate(self.order) for i in order]


class Balancer:
    """The native state, and the objects it points to.

    Args:
        plan: what to begin with; None: all backends of `config` are up.

    Raises:
        NativeError: the tables do not fit into memory.
    """

    def __init__(self, config: LbConfig, plan: Plan | None = None) -> None:
        self._plan = plan = plan or Plan(config, initial_shares(config))
        state = _lib.lb_create(plan.given)
        if state == _ffi.NULL:
            raise NativeError(_ffi.errno, "build the tables of the load balancer")
        self._state = _ffi.gc(state, _lib.lb_free)
        _lib.lb_health_set(state, plan.tables, plan.healths)
        self._max_connections = config.settings.max_connections

    @property
    def plan(self) -> Plan:
        """What it does at present."""
        return self._plan

    @property
    def max_connections(self) -> int:
        """The size of its table, which `apply` leaves as it is."""
        return self._max_connections

    def apply(self, plan: Plan) -> None:
        """Use other VIPs, backends or shares. Connections stay where they are, but those of UDP
        to removed backends end.

        Threads: call it in the thread of the kernel, between bursts.
        """
        if plan.given is not self._plan.given:
            check(_lib.lb_update(self._state, plan.given), "change the load balancer's VIPs")
        _lib.lb_health_set(self._state, plan.tables, plan.healths)
        self._plan = plan

    def update(self, config: LbConfig) -> None:
        """Use another configuration, with all backends up; see `apply`."""
        self.apply(Plan(config, initial_shares(config), self._plan))

    def set_health(self, shares: Shares) -> None:
        """Use other shares; see `apply`."""
        self.apply(Plan(self._plan.config, shares, self._plan))

    def take_failing(self) -> list[tuple[int, int]]:
        """Give the backends that have failed too often, once, as in `Plan.backends`.

        Threads: call it in the thread of the kernel, between bursts.
        """
        if self._state.nb_failing == 0:
            return []
        backends = self._plan.backends
        found = _ffi.new("uint32_t[]", len(backends))
        return [
            backends[found[i]]
            for i in range(_lib.lb_failing_take(self._state, found, len(backends)))
        ]

    def usage_bytes(self) -> bytes:
        """Copy what backends carry, for `read_usages`.

        Threads: call it in the thread of the kernel, between bursts.
        """
        size = self._state.config.nb_backends * _ffi.sizeof("struct lb_usage")
        return bytes(_ffi.buffer(self._state.usages, size))

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
    def native_state(self) -> Any:
        """The load balancer in C."""
        return self._state

    @property
    def kernel(self) -> NativeKernel:
        function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "lb_burst"))
        return NativeKernel(int(function), int(_ffi.cast("uintptr_t", self._state)), self)


def _sorted(vip: Vip) -> list[int]:
    """The backends of a VIP in the order of their names, whatever that of the file is."""
    names = vip.names
    return sorted(range(len(names)), key=names.__getitem__)


def _convert(config: LbConfig, orders: Sequence[Sequence[int]]) -> tuple[Any, list[Any]]:
    """Return the native configuration without lookup tables, and the objects it points to."""
    text = config.settings
    vips: list[dict[str, Any]] = []
    backends: list[dict[str, Any]] = []
    for vip, order in zip(config.vips, orders, strict=True):
        vips.append(
            {
                "address": vip.address.packed.ljust(ADDRESS_BYTES, b"\0"),
                "ip_version": vip.address.version,
                "protocol": vip.protocol,
                "port": vip.port.to_bytes(2, "big"),
                "by_client": vip.by_client,
                "forward": _FORWARDS.index(vip.forward),
                "first_backend": len(backends),
                "nb_backends": len(order),
                "table_size": text.table_size,
                "failures": vip.passive.failures if vip.passive else 0,
                "window_ns": int(vip.passive.window_s * _NS) if vip.passive else 0,
            }
        )
        backends.extend(
            {
                "address": backend.address.packed.ljust(ADDRESS_BYTES, b"\0"),
                "port": backend.port.to_bytes(2, "big"),
                "ip_version": backend.address.version,
                "has_mac": bool(backend.mac),
                "mac": backend.mac or bytes(6),
            }
            for backend in map(vip.backends.__getitem__, order)
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
            "gue_port": text.gue_port.to_bytes(2, "big"),
            "tunnel_mtu": text.tunnel_mtu,
            "tunnel_source4": config.tunnel_sources.get(4, b"").ljust(ADDRESS_BYTES, b"\0"),
            "tunnel_source6": config.tunnel_sources.get(16, b"").ljust(ADDRESS_BYTES, b"\0"),
        },
    )
    return given, list(arrays)


def _table(shares: _Weights, size: int) -> Any:
    """The lookup table of backends by name and weight; NULL if none gets anything."""
    if not any(weight for _, weight in shares):
        return _ffi.NULL
    permutations = [permutation(name, size) for name, _ in shares]
    return fill_table(permutations, size, [weight for _, weight in shares])
