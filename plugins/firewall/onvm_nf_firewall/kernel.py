# SPDX-License-Identifier: Apache-2.0
"""The firewall's C kernel: allocate, call, check, convert."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from onvm_nf_firewall import _firewall  # type: ignore[attr-defined]  # compiled
from onvm_nf_firewall.config import PROTOCOLS_WITH_PORTS, FirewallConfig, Rule
from onvm_sdk import NativeKernel
from onvm_sdk.errors import NativeError, check
from onvm_sdk.limits import ADDRESS_BYTES

__all__ = ["expire", "make_kernel", "restore", "rule_hits", "save"]

_ffi: Any = _firewall.ffi
_lib: Any = _firewall.lib
_NS = 1_000_000_000


_SIDES = {
    "any": _lib.FIREWALL_SIDE_ANY,
    "near": _lib.FIREWALL_SIDE_NEAR,
    "far": _lib.FIREWALL_SIDE_FAR,
}
_KINDS = ("arp", "vlan_stack", "llc", "pppoe", "mpls", "non_ip")  # enum firewall_kind


def _native_protocols(rule: Rule) -> tuple[int | None, ...]:
    """Return the protocols of the rules of an ACL: several if one names ports and no protocol."""
    if rule.protocol is None and rule.names_ports:
        return PROTOCOLS_WITH_PORTS
    return (rule.protocol,)


def _native_rules(rule: Rule, index: int, count: int) -> list[dict[str, Any]]:
    nothing = bytes(ADDRESS_BYTES)
    return [
        {
            "src": rule.src.network_address.packed.ljust(ADDRESS_BYTES, b"\0")
            if rule.src
            else nothing,
            "dst": rule.dst.network_address.packed.ljust(ADDRESS_BYTES, b"\0")
            if rule.dst
            else nothing,
            "src_prefix": rule.src.prefixlen if rule.src else 0,
            "dst_prefix": rule.dst.prefixlen if rule.dst else 0,
            "protocol": protocol or 0,
            "protocol_mask": 0 if protocol is None else 0xFF,
            "src_port_first": rule.src_ports.start,
            "src_port_last": rule.src_ports.stop - 1,
            "dst_port_first": rule.dst_ports.start,
            "dst_port_last": rule.dst_ports.stop - 1,
            "priority": count - index,
            "value": index + 1,
        }
        for protocol in _native_protocols(rule)
    ]


def _native_array(rules: Sequence[Rule], version: int) -> Any:
    """Make the rules of an IP version one by one: a list of all takes more than the tables."""
    fitting = [(i, rule) for i, rule in enumerate(rules) if rule.holds_for(version)]
    count = sum(len(_native_protocols(rule)) for _, rule in fitting)
    array, position = _ffi.new("struct onvm_acl_rule[]", count), 0
    for i, rule in fitting:
        for one in _native_rules(rule, i, len(rules)):
            array[position] = one
            position += 1
    return array


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
        "default_accepts": text.default == "accept",
        "is_stateful": text.stateful,
        "is_midstream": text.midstream,
        "is_liberal": text.liberal,
        "verifies_checksums": text.verify_checksums,
        "passes_fragments": text.fragments == "pass",
        "passes_ip_options": text.ip_options == "pass",
        "passes_source_route": text.source_route == "pass",
        "passes_ndp": text.ndp == "pass",
        "passes_kind": [
            text.default == "accept" if verdict == "default" else verdict == "pass"
            for verdict in verdicts
        ],
    }


def make_kernel(config: FirewallConfig) -> NativeKernel:
    """Build the tables.

    Raises:
        NativeError: the tables do not fit into memory.
    """
    rules = config.rules
    arrays = {version: _native_array(rules, version) for version in (4, 6)}
    accepts = _ffi.new("uint8_t[]", [rule.accepts for rule in rules])
    sides = _ffi.new("uint8_t[]", [_SIDES[rule.side] for rule in rules])
    given = _ffi.new(
        "struct firewall_config *",
        {
            "rules4": arrays[4],
            "rules6": arrays[6],
            "nb_rules4": len(arrays[4]),
            "nb_rules6": len(arrays[6]),
            "accepts": accepts,
            "sides": sides,
            "nb_accepts": len(rules),
            **_native_config(config),
        },
    )
    state = _lib.firewall_create(given)
    if state == _ffi.NULL:
        raise NativeError(_ffi.errno, f"build the tables of {len(rules)} firewall rules")
    owner = _ffi.gc(state, _lib.firewall_free)
    function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "firewall_burst"))
    return NativeKernel(int(function), int(_ffi.cast("uintptr_t", state)), owner)


def rule_hits(kernel: NativeKernel, rules: int) -> list[int]:
    """Return the number of packets that each rule has decided."""
    owner: Any = kernel.keep
    return [int(owner.rules.hits[i]) for i in range(rules)]


def expire(kernel: NativeKernel, now_ns: int) -> int:
    """Delete idle connections, a tenth of the table in each call, and return how many."""
    return int(_lib.firewall_expire(kernel.keep, now_ns))


def save(kernel: NativeKernel, now_ns: int) -> bytes:
    """Return all connections as bytes, for an NF host with the same byte order and layout."""
    firewall: Any = kernel.keep
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
    rc = -errno.EINVAL if rest else _lib.firewall_restore(kernel.keep, saved, count, now_ns)
    check(rc, f"take over {count} connections")
