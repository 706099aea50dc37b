# SPDX-License-Identifier: Apache-2.0
"""The lists of ``onvm nf show lb``: backends and connections."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from onvm_nf_lb import _lb  # type: ignore[attr-defined]  # compiled
from onvm_nf_lb.kernel import Balancer, read_usages
from onvm_nf_lb.shares import Health

__all__ = ["backends", "connections", "kill_connection"]

_ffi: Any = _lb.ffi
_lib: Any = _lb.lib
_AT_ONCE = 64
_NS = 1_000_000_000
_PROTOCOLS = {6: "tcp", 17: "udp"}


def backends(balancer: Balancer) -> Iterator[dict[str, Any]]:
    """Give the backends of all VIPs."""
    plan = balancer.plan
    usages = read_usages(balancer.usage_bytes())
    for (vip, backend), usage in zip(plan.backends, usages, strict=True):
        share = plan.shares[vip][backend]
        state = "up" if share.health is Health.UP else "down"
        yield {
            "vip": plan.config.vips[vip].name,
            "backend": str(plan.config.vips[vip].backends[backend]),
            "state": "draining" if state == "up" and not share.weight else state,
            "weight": share.weight,
            "connections": usage.current,
            "opened": usage.opened,
            "packets_in": usage.packets[0],
            "packets_out": usage.packets[1],
            "bytes_in": usage.size[0],
            "bytes_out": usage.size[1],
        }


def connections(balancer: Balancer) -> Iterator[dict[str, Any]]:
    """Give the connections there are, a few from the kernel at a time."""
    at, saved = _ffi.new("int32_t *", 0), _ffi.new("struct lb_saved[]", _AT_ONCE)
    while at[0] >= 0:
        state = balancer.native_state
        count = _lib.lb_list(state, at, saved, _AT_ONCE, time.monotonic_ns())
        # each is copied: packets come between two of them
        yield from [_entry(saved[i]) for i in range(count)]


def _entry(saved: Any) -> dict[str, Any]:
    key = saved.key
    is_nat = saved.forward == _lib.LB_NAT
    backend = saved.reply.src if is_nat else saved.address
    version = key.ip_version if is_nat else saved.outer_version
    return {
        "protocol": _PROTOCOLS[key.protocol],
        "client": _address(key.src, key.ip_version),
        "client_port": _port(key.src_port),
        "vip": _address(key.dst, key.ip_version),
        "vip_port": _port(key.dst_port),
        "backend": _address(backend, version),
        "backend_port": _port(saved.reply.src_port),
        "idle_s": saved.age_ns // _NS,
        "vlan": ".".join(str(number) for number in key.vlans if number),
        "_key": bytes(_ffi.buffer(_ffi.addressof(key))).hex(),
    }


def _address(field: Any, version: int) -> str:
    return str(ip_address(bytes(field)[: 4 if version == 4 else 16]))


def _port(field: Any) -> int:
    return int.from_bytes(bytes(field), "big")


def kill_connection(balancer: Balancer, entry: Mapping[str, Any]) -> bool:
    """Forget a connection that `connections` has given."""
    key = _ffi.new("struct lb_key *")
    _ffi.memmove(key, bytes.fromhex(entry["_key"]), _ffi.sizeof("struct lb_key"))
    return bool(_lib.lb_kill(balancer.native_state, key))
