"""Messages, claims and addresses that the NFs of a host tell the manager.

All of it waits until the host is attached. A manager that comes later does not know claims and
addresses, so it is told them again.
"""

from __future__ import annotations

from onvm_sdk._native.nf import Host, MessageType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Announcements"]


class Announcements:
    """The announcements of all NFs of a host; an NF is named by its number.

    Attributes:
        is_attached: a manager gets them at once.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.is_attached = False
        self._outbox: list[tuple[int, str, bytes]] = []
        self._claims: list[tuple[int, str, int, int, int]] = []
        self._addresses: dict[int, bytes] = {}

    def tell_claims(self) -> None:
        """Tell a manager what belongs to these NFs, before the first packet comes."""
        for claim in self._claims:
            self._host.send_claim(*claim)

    def tell_rest(self) -> None:
        """Tell a manager for which this host is ready what has waited."""
        self.is_attached = True
        for number, payload in self._addresses.items():
            self._host.send(MessageType.OWN_ADDRESSES, number, payload=payload)
        outbox, self._outbox = self._outbox, []
        for number, to, payload in outbox:
            self._host.send(MessageType.USER, number, to, payload)

    def sender(self, number: int) -> Callable[[str, bytes], None]:
        """Make the function that sends messages of an NF to others."""

        def send(to: str, payload: bytes) -> None:
            if self.is_attached:
                self._host.send(MessageType.USER, number, to, payload)
            else:
                self._outbox.append((number, to, payload))

        return send

    def claimer(self, number: int) -> Callable[[str, int, int, int], None]:
        """Make the function that claims traffic for an NF."""

        def claim(address: str, first_port: int, end_port: int, protocol: int) -> None:
            self._claims.append((number, address, first_port, end_port, protocol))
            if self.is_attached:
                self._host.send_claim(number, address, first_port, end_port, protocol)

        return claim

    def unclaimer(self, number: int) -> Callable[[str, int, int, int], None]:
        """Make the function that gives a claim of an NF up."""

        def unclaim(address: str, first_port: int, end_port: int, protocol: int) -> None:
            claim = (number, address, first_port, end_port, protocol)
            if claim not in self._claims:
                return
            self._claims.remove(claim)
            if self.is_attached:
                self._host.send_claim(*claim, is_given_up=True)

        return unclaim

    def address_teller(self, number: int) -> Callable[[Sequence[str]], None]:
        """Make the function that tells which addresses an NF answers for."""

        def own_addresses(addresses: Sequence[str]) -> None:
            self._addresses[number] = "\n".join(addresses).encode()
            if self.is_attached:
                payload = self._addresses[number]
                self._host.send(MessageType.OWN_ADDRESSES, number, payload=payload)

        return own_addresses
