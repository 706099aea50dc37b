# SPDX-License-Identifier: Apache-2.0
"""The NAT's C kernel: allocate, call, check, convert."""

from __future__ import annotations

import errno
import secrets
from typing import Any

from onvm_nf_nat import _nat  # type: ignore[attr-defined]  # compiled
from onvm_nf_nat.config import NatConfig
from onvm_sdk import NativeKernel
from onvm_sdk.errors import NativeError, check

__all__ = ["allowed", "inherited", "make_kernel", "make_key", "restore", "save", "tick"]

_ffi: Any = _nat.ffi
_lib: Any = _nat.lib
_NS = 1_000_000_000
_FILTERING: dict[str, int] = {
    "endpoint-independent": _lib.NAT_FILTER_NONE,
    "address-dependent": _lib.NAT_FILTER_ADDRESS,
    "address-and-port-dependent": _lib.NAT_FILTER_ADDRESS_AND_PORT,
}


def make_kernel(config: NatConfig, key: tuple[int, int] | None = None) -> NativeKernel:
    """Build the tables.

    Args:
        key: the secret that external ports depend on; None draws one.

    Raises:
        NativeError: they do not fit into memory.
    """
    text = config.settings
    given = _ffi.new(
        "struct nat_config *",
        {
            "externals": [address.packed for address in config.externals],
            "nb_externals": len(config.externals),
            "first_port": config.ports.start,
            "end_port": config.ports.stop,
            "max_sessions": text.max_sessions,
            "subscriber_ports": config.subscriber_ports,
            "subscriber_sessions": config.subscriber_sessions,
            "nb_inside": len(config.inside),
            "inside": [
                {"address": int(net.network_address), "mask": int(net.netmask)}
                for net in config.inside
            ],
            "idle_ns": [
                seconds * _NS
                for seconds in (
                    text.tcp_closing_s,
                    text.tcp_opening_s,
                    text.icmp_s,
                    text.udp_s,
                    text.udp_s,
                    text.tcp_established_s,
                    text.udp_s,
                    text.tcp_established_s,
                )
            ],
            "port_rest_ns": text.port_rest_s * _NS,
            "nat64": {
                "address": config.nat64.network_address.packed if config.nat64 else bytes(16),
                "bits": config.nat64.prefixlen if config.nat64 else 0,
            },
            "nb_forwards": len(config.forwards),
            "forwards": [
                {
                    "inside": one.inside.packed,
                    "inside_port": one.inside_port,
                    "port": one.port,
                    "protocol": one.protocol,
                    "external": one.external,
                }
                for one in config.forwards
            ],
            "nb_pairs": len(config.pairs),
            "pairs": [
                {"inside": inside.packed, "external": external.packed}
                for inside, external in config.pairs
            ],
            "nb_nptv6": len(config.nptv6),
            "nptv6": [
                {
                    "inside": inside.network_address.packed,
                    "outside": outside.network_address.packed,
                    "bits": inside.prefixlen,
                }
                for inside, outside in config.nptv6
            ],
            "errors_per_s": text.icmp_errors_per_s,
            "key": key or make_key(),
            "filtering": _FILTERING[text.filtering],
            "keeps_port": text.preserve_port,
            "keeps_parity": text.preserve_parity,
            "logs_mappings": text.log_mappings,
            "refreshes_inbound": text.inbound_refresh,
        },
    )
    state = _lib.nat_create(given)
    if state == _ffi.NULL:
        raise NativeError(_ffi.errno, f"build the tables of {text.max_sessions} NAT sessions")
    owner = _ffi.gc(state, _lib.nat_free)
    function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "nat_burst"))
    return NativeKernel(int(function), int(_ffi.cast("uintptr_t", state)), owner)


def make_key() -> tuple[int, int]:
    """Draw the secret that external ports depend on."""
    return secrets.randbits(64), secrets.randbits(64)


def tick(kernel: NativeKernel, now_ns: int) -> None:
    """Forget sessions whose time is over, whether or not packets come.

    Threads: call it in the thread of the kernel, between bursts.
    """
    _lib.nat_tick(kernel.keep, now_ns)


def set_routed(kernel: NativeKernel, is_routed: bool, /, *, is_tagged: bool = False) -> None:
    """Let hairpinned packets go on to a router behind the NAT, or back where they came from.

    Args:
        is_tagged: the router has links with VLANs, whose tags it takes off.
    """
    _lib.nat_set_routed(kernel.keep, is_routed, is_tagged)


def set_mtu(kernel: NativeKernel, mtu: int, link_mtu: int | None = None, /) -> None:
    """Say what packets must fit through; 0: anything.

    Args:
        link_mtu: of those that change their IP version; None: the same.
    """
    _lib.nat_set_mtu(kernel.keep, mtu, mtu if link_mtu is None else link_mtu)


def save(kernel: NativeKernel, now_ns: int) -> bytes:
    """Return all sessions as bytes, for an NF host with the same byte order and layout."""
    nat: Any = kernel.keep
    count = _lib.nat_nb_saved(nat)
    saved = _ffi.new("struct nat_saved[]", count)
    count = _lib.nat_save(nat, saved, count, now_ns)
    return bytes(_ffi.buffer(saved, count * _ffi.sizeof("struct nat_saved")))


def restore(kernel: NativeKernel, state: bytes, now_ns: int) -> None:
    """Take over sessions from `save`, with their external ports.

    Raises:
        NativeError: there is no room for them, a port of theirs is taken, or they are no such
            bytes; nothing has changed then.
    """
    count, rest = divmod(len(state), _ffi.sizeof("struct nat_saved"))
    saved = _ffi.new("struct nat_saved[]", count)
    _ffi.memmove(saved, state, len(state) - rest)
    rc = _lib.nat_restore(kernel.keep, saved, count, now_ns) if not rest else -errno.EINVAL
    check(rc, f"take over {count} NAT sessions")


def allowed(
    kernel: NativeKernel, state: bytes, ports: range, *, keeps_hosts: bool = False
) -> bytes:
    """Return the sessions from `save` that the configuration of `kernel` allows.

    Args:
        ports: external ports that they may have, also those of other instances.
        keeps_hosts: also those of IPv6 hosts.
    """
    size = _ffi.sizeof("struct nat_saved")
    saved = _ffi.new("struct nat_saved[]", len(state) // size)
    _ffi.memmove(saved, state, len(state))
    count = _lib.nat_allowed(kernel.keep, saved, len(saved), ports.start, ports.stop, keeps_hosts)
    return bytes(_ffi.buffer(saved, count * size))


def inherited(kernel: NativeKernel) -> int:
    """Return the number of mappings with ports outside the block of this instance."""
    return int(_lib.nat_nb_inherited(kernel.keep))
