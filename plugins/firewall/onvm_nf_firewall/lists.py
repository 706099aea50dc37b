# SPDX-License-Identifier: Apache-2.0
"""The lists of ``onvm nf show firewall``: connections and rules."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from onvm_nf_firewall import _firewall  # type: ignore[attr-defined]  # compiled
from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.kernel import native_state, rule_hits
from onvm_nf_firewall.names import PROTOCOLS, name_of_protocol
from onvm_sdk import NativeKernel

__all__ = ["connections", "kill_connection", "rules"]

_ffi: Any = _firewall.ffi
_lib: Any = _firewall.lib
_AT_ONCE = 64
_KEY_BYTES = _ffi.sizeof("struct connection_key")
_STATES = (
    "syn-sent", "syn-received", "established", "half-closed", "closing", "closed", "picked-up",
)  # fmt: skip


def connections(kernel: NativeKernel) -> Iterator[dict[str, Any]]:
    """Give the connections there are, a few from the kernel at a time."""
    at, saved = _ffi.new("int32_t *", 0), _ffi.new("struct firewall_saved[]", _AT_ONCE)
    while at[0] >= 0:
        count = _lib.firewall_list(native_state(kernel), at, saved, _AT_ONCE, time.monotonic_ns())
        # each is copied: packets come between two of them, and a kernel may be replaced
        yield from [_entry(saved[i]) for i in range(count)]


def _entry(saved: Any) -> dict[str, Any]:
    key, connection = saved.key, saved.connection
    low, high = _end(key, key.low), _end(key, key.high)
    src, dst = (high, low) if connection.initiator_is_high else (low, high)
    is_tcp = key.protocol == PROTOCOLS["tcp"]
    answered = "answered" if connection.has_reply else "unanswered"
    return {
        "protocol": name_of_protocol(key.protocol),
        "src": src[0],
        "src_port": src[1],
        "dst": dst[0],
        "dst_port": dst[1],
        "state": _STATES[connection.tcp.state] if is_tcp else answered,
        "idle_s": saved.age_ns // 1_000_000_000,
        "vlan": ".".join(str(number) for number in key.vlan if number),
        "_key": bytes(_ffi.buffer(_ffi.addressof(key))).hex(),
    }


def _end(key: Any, end: Any) -> tuple[str, int]:
    data = bytes(end)
    address = ip_address(data[: 4 if key.ip_version == 4 else 16])
    return str(address), int.from_bytes(data[16:18], "big")


def kill_connection(kernel: NativeKernel, entry: Mapping[str, Any]) -> bool:
    """Forget a connection that `connections` has given."""
    key = _ffi.new("struct connection_key *")
    _ffi.memmove(key, bytes.fromhex(entry["_key"]), _KEY_BYTES)
    return bool(_lib.firewall_kill(native_state(kernel), key))


def rules(kernel: NativeKernel, config: FirewallConfig) -> Iterator[dict[str, Any]]:
    """Give the rules in the order of the file."""
    listed = list(config.all_rules())
    for rule, packets in zip(listed, rule_hits(kernel, len(listed)), strict=True):
        yield {
            "rule": rule.name,
            "action": rule.action,
            "chain": rule.chain,
            "packets": packets,
            "comment": rule.comment,
        }
