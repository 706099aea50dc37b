# SPDX-License-Identifier: Apache-2.0
"""Lines about mappings, so that operators can say later who had an external port."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from onvm_nf_nat import _nat  # type: ignore[attr-defined]  # compiled
from onvm_nf_nat.lists import PROTOCOLS, vlan_text
from onvm_sdk import NativeKernel

__all__ = ["lines"]

_ffi: Any = _nat.ffi
_lib: Any = _nat.lib
_AT_ONCE = 256
_NS = 1_000_000_000


def lines(kernel: NativeKernel) -> Iterator[str]:
    """Take the events that wait, each as a line of JSON.

    Threads: call it in the thread of the kernel, between bursts.
    """
    taken = _ffi.new("struct nat_event[]", _AT_ONCE)
    behind_ns = time.time_ns() - time.monotonic_ns()
    while count := _lib.nat_log_take(kernel.keep, taken, _AT_ONCE):
        yield from (json.dumps(_line(taken[i], behind_ns)) for i in range(count))


def _line(event: Any, behind_ns: int) -> dict[str, Any]:
    inside = bytes(event.inside)
    at = datetime.fromtimestamp((event.time_ns + behind_ns) / _NS, UTC)
    return {
        "event": "nat",
        "mapping": "opened" if event.is_opened else "closed",
        "time": at.isoformat(timespec="milliseconds"),
        "protocol": PROTOCOLS[event.protocol],
        "inside": str(IPv6Address(inside) if event.is_ipv6 else IPv4Address(inside[:4])),
        "inside_port": int.from_bytes(bytes(event.inside_port), "big"),
        "external": str(IPv4Address(bytes(event.external))),
        "external_port": int.from_bytes(bytes(event.port), "big"),
        "vlan": vlan_text(event.vlan),
    }
