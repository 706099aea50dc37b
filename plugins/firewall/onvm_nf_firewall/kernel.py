# SPDX-License-Identifier: Apache-2.0
"""The firewall's C kernel: allocate, call, check, convert."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from onvm_nf_firewall import _firewall  # type: ignore[attr-defined]  # compiled
from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.native_rules import NativeRules
from onvm_nf_firewall.program import compile_rules
from onvm_sdk import NativeKernel
from onvm_sdk.errors import NativeError, check
from onvm_sdk.limits import ADDRESS_BYTES

__all__ = [
    "Event",
    "bind_ports",
    "events",
    "expire",
    "make_kernel",
    "native_state",
    "restore",
    "rule_hits",
    "save",
]

_ffi: Any = _firewall.ffi
_lib: Any = _firewall.lib
_NS = 1_000_000_000


_KINDS = ("arp", "vlan_stack", "llc", "pppoe", "mpls", "non_ip")  # enum firewall_kind


_EVENTS = 256


@dataclass(frozen=True, slots=True)
class Event:
    """A packet that a rule has logged; `rule` and `port` are numbers."""

    time_ns: int
    rule: int
    port: int
    src: str
    dst: str
    protocol: int
    src_port: int
    dst_port: int
    flags: int
    vlan: int
    length: int


def _native_config(config: FirewallConfig) -> dict[str, Any]:
    """Make the plain fields of ``struct firewall_config``."""
    text = config.settings
    names = (
        "tcp_syn", "tcp_syn_received", "tcp_established", "tcp_transitory", "tcp_closing",
        "udp", "udp_unreplied", "icmp", "other",
    )  # fmt: skip
    verdicts = [getattr(text, kind) for kind in _KINDS]
    return {
        **{f"{name}_ns": getattr(text, f"{name}_s") * _NS for name in names},
        "max_connections": text.max_connections,
        "max_per_source": text.max_per_source,
        "max_limited": text.max_limited,
        "reject_rate": text.reject_rate,
        "log_rate": text.log_rate,
        "default_accepts": text.default == "accept",
        "is_stateful": config.is_tracking,
        "is_midstream": text.midstream,
        "is_liberal": text.liberal,
        "verifies_checksums": text.verify_checksums,
        "passes_fragments": text.fragments == "pass",
        "passes_ip_options": text.ip_options == "pass",
        "passes_source_route": text.source_route == "pass",
        "answers_behind": text.answer_behind,
        "passes_ndp": text.ndp == "pass",
        "passes_kind": [
            text.default == "accept" if verdict == "default" else verdict == "pass"
            for verdict in verdicts
        ],
    }


class _Owner:
    """What a kernel keeps: its state, and how ports are told to it."""

    def __init__(self, state: Any, rules: NativeRules) -> None:
        self.state = state
        self.rules = rules


def make_kernel(config: FirewallConfig) -> NativeKernel:
    """Build the tables.

    Raises:
        ConfigError: chains make too many rules.
        NativeError: the tables do not fit into memory.
    """
    rules = NativeRules(config, compile_rules(config))
    values, kept = rules.make()
    given = _ffi.new("struct firewall_config *", {**values, **_native_config(config)})
    state = _lib.firewall_create(given)
    del kept
    if state == _ffi.NULL:
        raise NativeError(_ffi.errno, f"build the tables of {values['nb_rules']} firewall rules")
    owner = _Owner(_ffi.gc(state, _lib.firewall_free), rules)
    function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "firewall_burst"))
    return NativeKernel(int(function), int(_ffi.cast("uintptr_t", state)), owner)


def native_state(kernel: NativeKernel) -> Any:
    """The firewall in C behind a kernel."""
    owner: Any = kernel.keep
    return owner.state


def bind_ports(kernel: NativeKernel, ports: Mapping[int, str], egress: Mapping[str, str]) -> None:
    """Tell the names of ports by their numbers; others have none.

    Args:
        egress: by the name of a port: where what comes in by it leaves.
    """
    owner: Any = kernel.keep
    columns = owner.rules.columns
    rows = max(ports, default=-1) + 1
    table = bytearray(rows * len(columns))
    for number, name in ports.items():
        for column, (names, is_exit) in enumerate(columns):
            seen = egress.get(name) if is_exit else name
            table[number * len(columns) + column] = seen is not None and seen in names
    rc = _lib.firewall_bind_ports(owner.state, _ffi.from_buffer("uint8_t[]", bytes(table)), rows)
    check(rc, f"tell the firewall {len(ports)} ports")


def events(kernel: NativeKernel) -> list[Event]:
    """Take the events that wait."""
    taken = _ffi.new("struct firewall_event[]", _EVENTS)
    found: list[Event] = []
    while count := _lib.firewall_events(native_state(kernel), taken, _EVENTS):
        for one in taken[0:count]:
            size = 4 if one.ip_version == 4 else ADDRESS_BYTES
            found.append(
                Event(
                    one.time_ns,
                    one.rule,
                    one.port,
                    str(ip_address(bytes(_ffi.buffer(one.src, size)))),
                    str(ip_address(bytes(_ffi.buffer(one.dst, size)))),
                    one.protocol,
                    one.src_port,
                    one.dst_port,
                    one.tcp_flags,
                    one.vlan,
                    one.length,
                )
            )
    return found


def rule_hits(kernel: NativeKernel, rules: int) -> list[int]:
    """Return the number of packets that each rule has decided."""
    state = native_state(kernel)
    return [int(state.rules.hits[i]) for i in range(rules)]


def expire(kernel: NativeKernel, now_ns: int) -> int:
    """Delete idle connections, a tenth of the table in each call, and return how many."""
    return int(_lib.firewall_expire(native_state(kernel), now_ns))


def save(kernel: NativeKernel, now_ns: int) -> bytes:
    """Return all connections as bytes, for an NF host with the same byte order and layout."""
    firewall = native_state(kernel)
    count = _lib.firewall_nb_connections(firewall)
    saved = _ffi.new("struct firewall_saved[]", count)
    count = _lib.firewall_save(firewall, saved, count, now_ns)
    return bytes(_ffi.buffer(saved, count * _ffi.sizeof("struct firewall_saved")))


def restore(kernel: NativeKernel, state: bytes, now_ns: int) -> None:
    """Take over connections from `save`.

    Raises:
        NativeError: the table is too small, or the bytes are damaged. Nothing has changed then.
    """
    count, rest = divmod(len(state), _ffi.sizeof("struct firewall_saved"))
    saved = _ffi.new("struct firewall_saved[]", count)
    _ffi.memmove(saved, state, len(state) - rest)
    rc = (
        -errno.EINVAL if rest else _lib.firewall_restore(native_state(kernel), saved, count, now_ns)
    )
    check(rc, f"take over {count} connections")
