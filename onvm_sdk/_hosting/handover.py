"""Handover: the state of an NF host's NFs moves to its successor.

The manager asks whether the NFs can hand over their state, holds packets back, and asks for the
state. It passes the state to the successor, which confirms that it has taken it over. Only then do
the flows move. An exception in an author's hook refuses the handover and is reported: the flows
stay with their state.

Threads: the thread of the NF host.
"""

from __future__ import annotations

import sys

from onvm_sdk._hosting.author import describe
from onvm_sdk._native.nf import MessageType
from onvm_sdk.errors import NativeError
from onvm_sdk.limits import STATE_BYTES_MAX
from onvm_sdk.nf import NetworkFunction

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onvm_sdk._native.nf import Host, Message
    from onvm_sdk.manifest import Manifest

__all__ = ["MESSAGES", "PIECE_BYTES", "HandOver"]

PIECE_BYTES = 16_000
MESSAGES = (
    MessageType.OFFER,
    MessageType.SNAPSHOT,
    MessageType.RESTORE,
    MessageType.STATE,
)


class HandOver:
    """Both sides of a handover in an NF host.

    Args:
        host: the attachment, for answers.
        nfs: the NFs in chain order, set up.
    """

    def __init__(
        self, host: Host, nfs: Sequence[NetworkFunction], manifests: Sequence[Manifest]
    ) -> None:
        self._host = host
        self._nfs = nfs
        self._manifests = manifests
        self._from = ""
        self._states: list[bytearray] = []
        self._inherits = False

    def take(self, message: Message) -> None:
        """Handle a message, one of `MESSAGES`."""
        try:
            self._take(message)
        except NativeError:  # the manager is gone, and the handover with it
            self._states = []

    def _take(self, message: Message) -> None:
        if message.kind == MessageType.OFFER:
            reason = self._obstacle()
            if reason:
                self._refuse("", reason)
            else:
                self._host.send(MessageType.OFFER, 0)
        elif message.kind == MessageType.SNAPSHOT:
            self._give()
        elif message.kind == MessageType.RESTORE:
            self._from = message.peer
            self._states = [bytearray() for _ in self._nfs]
        elif message.stage < len(self._states):
            self._receive(message.stage, message.payload)

    @property
    def is_watching(self) -> bool:
        """True if `turn` must be called regularly."""
        return self._inherits

    def turn(self) -> None:
        """Tell the manager when no more of the received state is in use."""
        if self._inherits and not any(nf.inherits() for nf in self._nfs):
            try:
                self._host.send(MessageType.RELEASED, 0)
            except NativeError:  # the next manager is told
                return
            self._inherits = False

    def _obstacle(self) -> str:
        """The reason why the state cannot be handed over; "" if it can."""
        for nf, manifest in zip(self._nfs, self._manifests, strict=True):
            kind = type(nf)
            can = (
                kind.snapshot is not NetworkFunction.snapshot
                and kind.restore is not NetworkFunction.restore
            )
            if manifest.state != "none" and not can:
                return f"{manifest.name} has no snapshot and restore"
        return ""

    def _give(self) -> None:
        states = []
        for number, nf in enumerate(self._nfs):
            state = self._try(number, "snapshot", nf.snapshot)
            if state is None:
                return
            states.append(state)
        n_bytes = sum(map(len, states))
        if n_bytes > STATE_BYTES_MAX:
            self._refuse("", f"its state has {n_bytes} bytes, more than {STATE_BYTES_MAX}")
            return
        for number, state in enumerate(states):
            for first in range(0, len(state), PIECE_BYTES):
                piece = bytes(state[first : first + PIECE_BYTES])
                self._host.send(MessageType.STATE, number, payload=piece)
            self._host.send(MessageType.STATE, number)

    def _receive(self, stage: int, piece: bytes) -> None:
        self._states[stage] += piece
        if sum(map(len, self._states)) > STATE_BYTES_MAX:
            self._states = []
            self._refuse(self._from, f"the state has more than {STATE_BYTES_MAX} bytes")
        elif not piece and stage + 1 == len(self._nfs):
            self._restore()

    def _restore(self) -> None:
        states, self._states = self._states, []
        for number, (nf, state) in enumerate(zip(self._nfs, states, strict=True)):
            # Without a snapshot there is nothing to restore: an NF without state.
            if state and self._try(number, "restore", nf.restore, bytes(state)) is None:
                return
        self._inherits = True
        self._host.send(MessageType.RESTORED, 0, self._from)

    def _try(
        self, number: int, hook: str, function: Callable[..., bytes | None], *arguments: bytes
    ) -> bytes | None:
        """Call an author's hook: the plugin boundary. Report an exception and return None."""
        try:
            return function(*arguments) or b""
        except Exception as error:  # the author's; it is reported, and nothing moves
            what = describe(error, self._nfs[number])
            line = f"{self._manifests[number].name}.{hook} raised {what}"
            print(f"onvm: {line}", file=sys.stderr, flush=True)
            self._refuse(self._from if hook == "restore" else "", line)
            return None

    def _refuse(self, peer: str, reason: str) -> None:
        self._host.send(MessageType.REFUSED, 0, peer, reason.encode()[:1000])
