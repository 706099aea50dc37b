"""Thin binding of the calls of ``dataplane.h`` for other hosts of a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check, ip_address
from onvm_core.dataplane.values import NO_SECRET, PeerCounters

__all__ = ["NativePeers"]


class NativePeers:
    """See `onvm_core.dataplane.interface.PeerPlane`."""

    def add_peer(self, address: bytes, secret: bytes = NO_SECRET) -> int:
        version, data = ip_address(address)
        return check(lib.onvm_dp_peer_add(version, data, secret))

    def remove_peer(self, peer: int) -> None:
        check(lib.onvm_dp_peer_remove(peer))

    def add_remote(self, services: Sequence[int], peer: int, number: int) -> int:
        return check(
            lib.onvm_dp_remote_add(
                ffi.new("uint16_t[]", list(services)), len(services), peer, number
            )
        )

    def remove_remote(self, slot: int, successor: int = 0) -> None:
        check(lib.onvm_dp_remote_remove(slot, successor))

    def set_successor(self, number: int, successor: int) -> None:
        check(lib.onvm_dp_number_successor(number, successor))

    def set_number(self, slot: int, number: int) -> None:
        check(lib.onvm_dp_host_number(slot, number))

    def read_peer(self, peer: int) -> PeerCounters:
        stats = ffi.new("struct onvm_dp_peer_stats *")
        check(lib.onvm_dp_read_peer(peer, stats))
        return PeerCounters(
            rx=stats.rx,
            tx=stats.tx,
            heard_us=None if stats.heard_us == 0xFFFFFFFFFFFFFFFF else stats.heard_us,
            is_down=bool(stats.is_down),
            forged=stats.forged,
            replayed=stats.replayed,
        )
