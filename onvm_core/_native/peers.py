"""Thin binding of those calls of ``dataplane.h`` that are about other hosts of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.dataplane import check
from onvm_core._native.values import PeerCounters


def _address(address: bytes) -> tuple[int, Any]:
    return 4 if len(address) == 4 else 6, ffi.from_buffer(address)


def open_tunnel(name: str, address: bytes, vni: int) -> int:
    """Open the port to the peers on this host's address (4 or 16 bytes); its ID."""
    version, data = _address(address)
    return check(lib.onvm_dp_tunnel_open(name.encode(), version, data, vni))


def add_peer(address: bytes) -> int:
    """Believe packets from this address; the peer's ID."""
    version, data = _address(address)
    return check(lib.onvm_dp_peer_add(version, data))


def remove_peer(peer: int) -> None:
    """Forget a peer at which nothing is any more."""
    check(lib.onvm_dp_peer_remove(peer))


def add_remote(services: Sequence[int], peer: int, number: int) -> int:
    """Let an NF host at a peer serve; its slot."""
    return check(
        lib.onvm_dp_remote_add(ffi.new("uint16_t[]", list(services)), len(services), peer, number)
    )


def remove_remote(slot: int, heir: int = 0) -> None:
    """Send the flows of an NF host at a peer elsewhere.

    Args:
        heir: slot of the host that takes them all; 0: that which all hosts choose.
    """
    check(lib.onvm_dp_remote_remove(slot, heir))


def set_heir(number: int, heir: int) -> None:
    """Let packets that name an NF host which has ended go to the one that has its state."""
    check(lib.onvm_dp_number_successor(number, heir))


def set_number(slot: int, number: int) -> None:
    """Number in the cluster of an NF host here; 0: none."""
    check(lib.onvm_dp_host_number(slot, number))


def read_peer(peer: int) -> PeerCounters:
    """Counters of a peer, and whether it answers probes."""
    stats = ffi.new("struct onvm_dp_peer_stats *")
    check(lib.onvm_dp_read_peer(peer, stats))
    return PeerCounters(
        rx=stats.rx,
        tx=stats.tx,
        heard_us=None if stats.heard_us == 0xFFFFFFFFFFFFFFFF else stats.heard_us,
        is_down=bool(stats.is_down),
    )
