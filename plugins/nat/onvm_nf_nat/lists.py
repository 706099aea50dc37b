# SPDX-License-Identifier: Apache-2.0
"""The lists of ``onvm nf show nat``: mappings and sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from onvm_nf_nat import _nat  # type: ignore[attr-defined]  # compiled
from onvm_sdk import NativeKernel

__all__ = ["PROTOCOLS", "kill", "mappings", "sessions", "vlan_text"]

_ffi: Any = _nat.ffi
_lib: Any = _nat.lib
_AT_ONCE = 64
_NS = 1_000_000_000
_SEEN, _FIN, _RST = 1, 4, 16  # enum onvm_tcp_track
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}


def mappings(kernel: NativeKernel) -> Iterator[dict[str, Any]]:
    """Give the mappings there are, a few from the kernel at a time."""
    at, listed = _ffi.new("int32_t *", 0), _ffi.new("struct nat_mapping[]", _AT_ONCE)
    nat: Any = kernel.keep
    while at[0] >= 0:
        count = _lib.nat_list_mappings(nat, at, listed, _AT_ONCE)
        externals = [str(IPv4Address(bytes(one))) for one in nat.config.externals]
        # each is copied: packets come between two of them
        yield from [_mapping(nat, listed[i], externals) for i in range(count)]


def _mapping(nat: Any, mapping: Any, externals: list[str]) -> dict[str, Any]:
    inside = mapping.inside
    return {
        "protocol": PROTOCOLS[inside.protocol],
        "inside": _inside(nat, inside.address),
        "inside_port": int.from_bytes(bytes(inside.port), "big"),
        "external": externals[mapping.external],
        "external_port": int.from_bytes(bytes(mapping.port), "big"),
        "sessions": mapping.nb_sessions,
        "forwarded": bool(mapping.is_forwarded),
        "vlan": vlan_text(inside.vlan),
        "_key": bytes(_ffi.buffer(_ffi.addressof(inside))).hex(),
    }


def sessions(kernel: NativeKernel) -> Iterator[dict[str, Any]]:
    """Give the sessions there are, likewise."""
    at, saved = _ffi.new("int32_t *", 0), _ffi.new("struct nat_saved[]", _AT_ONCE)
    while at[0] >= 0:
        count = _lib.nat_list_sessions(kernel.keep, at, saved, _AT_ONCE, time.monotonic_ns())
        yield from [_session(kernel.keep, saved[i]) for i in range(count)]


def _session(nat: Any, saved: Any) -> dict[str, Any]:
    key = saved.key
    return {
        "protocol": PROTOCOLS[key.protocol],
        "inside": _inside(nat, key.inside),
        "inside_port": int.from_bytes(bytes(key.inside_port), "big"),
        "external": str(IPv4Address(bytes(saved.external))),
        "external_port": int.from_bytes(bytes(saved.port), "big"),
        "remote": str(IPv4Address(bytes(key.remote))),
        "remote_port": int.from_bytes(bytes(key.remote_port), "big"),
        "state": _state(key.protocol, saved.state),
        "idle_s": saved.age_ns // _NS,
        "vlan": vlan_text(key.vlan),
        "_key": bytes(_ffi.buffer(_ffi.addressof(key))).hex(),
    }


def _inside(nat: Any, address: Any) -> str:
    if not address[0]:  # a stand-in
        return str(IPv6Address(bytes(_ffi.buffer(_lib.nat_host_of(nat, address), 16))))
    return str(IPv4Address(bytes(address)))


def _state(protocol: int, state: int) -> str:
    is_tcp = protocol == 6
    if is_tcp and (state & _RST or state & 3 * _FIN == 3 * _FIN):
        return "closing"
    if state & 3 * _SEEN != 3 * _SEEN:
        return "opening" if is_tcp else "unanswered"
    return "established" if is_tcp else "answered"


def vlan_text(vlan: Any) -> str:
    """The outer and the inner VLAN; of more than two, a number that stands for them."""
    number = int.from_bytes(bytes(vlan), "big")
    outer, inner = number >> 12, number & 0xFFF
    if not outer:
        return str(inner or "")
    return f"{outer}.{inner}" if inner else str(outer)


def kill(kernel: NativeKernel, what: str, entry: Mapping[str, Any]) -> bool:
    """End a mapping with its sessions, or a session, that a list has given."""
    kind, function = {
        "mappings": ("struct nat_endpoint", _lib.nat_kill_mapping),
        "sessions": ("struct nat_session_key", _lib.nat_kill_session),
    }[what]
    key = _ffi.new(f"{kind} *")
    _ffi.memmove(key, bytes.fromhex(entry["_key"]), _ffi.sizeof(kind))
    return bool(function(kernel.keep, key, time.monotonic_ns()))
