"""Held packets: those that an NF keeps beyond their burst, and releases later.

``token = pkt.hold()`` or ``tokens = burst.hold(where)`` keeps packets; a token of 0 says that the
NF holds as many as it may. ``ctx.held`` releases them by their tokens, from any method of the NF.
The manifest says with ``held_packets`` how many the NF wants to hold; a manager allows at most half
the length of its rings, and tells the number as `HeldPackets.capacity`.

The SDK releases all held packets to the next service, in the order in which they came, before an
instance ends and before its state is handed over. If the manager goes away, they are gone with it.
"""

from __future__ import annotations

from onvm_sdk._native import held as _held
from onvm_sdk.verdict import Verdict

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from onvm_sdk.packet import PacketView

__all__ = ["HeldPackets"]

_DESTINATION_MAX = 65535


class HeldPackets:
    """The packets that one NF holds.

    A token that is not held, as after a release, gives False or None; it is no error, because the
    packets may have been released by the SDK.

    Threads: the thread of the NF host.
    """

    def __init__(self, table: int, context: int = 0) -> None:
        self._table = _held.Table(table)
        self._context = context

    def __len__(self) -> int:
        return self._table.count

    def __contains__(self, token: object) -> bool:
        return isinstance(token, int) and self._table.has(token)

    @property
    def capacity(self) -> int:
        """The most packets that may be held; 0 while an instance hands its state over."""
        return self._table.limit

    @property
    def total(self) -> int:
        """Packets that have ever been held."""
        return self._table.total

    @property
    def refused(self) -> int:
        """Packets that were not held because of the limit."""
        return self._table.refused

    def release(self, token: int) -> bool:
        """Send a held packet to the next service of its chain. False if it is not held."""
        return self._release(token, Verdict.NEXT, 0)

    def drop(self, token: int, reason: int = 0) -> bool:
        """Drop a held packet. False if it is not held.

        Args:
            reason: index into the manifest's ``drop_reasons``.
        """
        return self._release(token, Verdict.DROP, reason)

    def out(self, token: int, port: int) -> bool:
        """Send a held packet out of `port`. False if it is not held."""
        return self._release(token, Verdict.OUT, port)

    def to_service(self, token: int, service_id: int) -> bool:
        """Send a held packet to the service with this ID. False if it is not held."""
        return self._release(token, Verdict.TO_SERVICE, service_id)

    def release_all(self) -> int:
        """Send all held packets to their next services, in the order in which they came.

        Returns:
            How many there were.
        """
        return self._table.release_all()

    def packet(self, token: int) -> PacketView | None:
        """Return a view of a held packet; None if it is not held.

        Lifetime: the view is valid until the packet is released.
        """
        from onvm_sdk._native import packet

        return packet.held_view(self._table.address, token, self._context)

    def _release(self, token: int, verdict: int, destination: int) -> bool:
        if not 0 <= destination <= _DESTINATION_MAX:
            raise OverflowError("a reason, port or service ID is below 65536")
        return self._table.release(token, verdict, destination)
