"""Handover: the state of a draining NF host moves to the sibling that takes its flows.

The state of a fused host may also go to several hosts, one for each of its NFs: then each is a
successor.

The steps, each of which begins only when the one before is done:

1. the host is asked whether its NFs can hand their state over;
2. no packet enters a path through it any more, and the packets that it holds come back: its state
   no longer changes, and new packets for it wait in the ports;
3. it gives its state, in pieces, which are kept here;
4. the successor gets them, and confirms that it has taken over the state;
5. the flows move to the successor: the caller stops the host.

The successor may also be on another machine: then the agents do step 4. They read the pieces here
and give them to the manager there (`receipt`), and the flows move when they report success.

Steps 2 to 5 take a few milliseconds for thousands of flows, and at most `pause_s`. After that time,
or on any other failure, packets go to the host again as before, and the caller is told why. The
state has at most `STATE_BYTES_MAX` bytes.

Threads: the manager's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from onvm_core.manager.handover.receipt import QUEUED_MAX, StateReceipts, reason_of
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import STATE_BYTES_MAX

__all__ = ["HandoverFailure", "Handovers"]

ANSWER_TIMEOUT_S = 2.0
"""Time limit of the answer to the first question; no packet waits for it."""
EXCUSED_S = 5.0
"""An NF host that writes or reads a state does not count as hung for this time."""


@dataclass(frozen=True, slots=True)
class HandoverFailure:
    """The reason why a state was not handed over.

    Attributes:
        reason: the reason, as text for people.
        is_timeout: a step took too long, so that another try may succeed; otherwise the NF host has
            refused.
    """

    reason: str
    is_timeout: bool = False

    def __str__(self) -> str:
        return self.reason


class _Step(Enum):
    ASKED = "it did not answer whether it can"
    EMPTYING = "its packets did not come back"
    TAKING = "it did not give its state"
    GIVING = "{successors} did not take the state"
    LEAVING = "it was not taken over by another host"


@dataclass(slots=True, eq=False)
class _Transfer:
    source: NfHost
    successors: tuple[NfHost, ...]
    pause_s: float
    deadline_s: float
    step: _Step = _Step.ASKED
    pieces: deque[tuple[NfHost | None, int, bytes]] = field(default_factory=deque)
    """Successor (None: elsewhere), its stage, and the piece."""
    waits_for: set[int] = field(default_factory=set)
    """Slots of successors that have not yet confirmed that they have the state."""
    n_bytes: int = 0
    is_paused: bool = False

    @property
    def name(self) -> str:
        """The name of the source that the successor sees."""
        return self.source.instances[0].name

    @property
    def successor_names(self) -> str:
        """The names of the successors, as text for people."""
        return " and ".join(successor.instances[0].name for successor in self.successors)

    @property
    def is_whole(self) -> bool:
        """True if a successor elsewhere may have all of the state."""
        return self.step is _Step.LEAVING and not self.pieces


class Handovers:
    """All handovers in progress.

    Args:
        on_end: is called with the source, the successors, and the failure; None when they have the
            state and the flows may move.
        on_received: is called with a successor and the name of the first instance whose state it
            has.
        on_released: is called with a successor that no longer uses any such state.
    """

    def __init__(
        self,
        manager: Manager,
        *,
        on_end: Callable[[NfHost, Sequence[NfHost], HandoverFailure | None], None],
        on_received: Callable[[NfHost, str], None],
        on_released: Callable[[NfHost], None],
    ) -> None:
        self._manager = manager
        self._plane = manager.plane
        self._on_end = on_end
        self._on_received = on_received
        self._on_released = on_released
        self._transfers: dict[int, _Transfer] = {}
        self._excused: dict[int, float] = {}
        self._failures: dict[int, str] = {}
        """Failures of handovers to other machines, by slot, until they are read."""
        self.receipts = StateReceipts(manager, self._excuse)
        manager.on_state_message = self._take

    @property
    def is_urgent(self) -> bool:
        """True if packets wait for a handover."""
        return any(transfer.is_paused for transfer in self._transfers.values())

    def is_excused(self, host: NfHost) -> bool:
        """True if a host that makes no progress may be busy with a state."""
        return time.monotonic() < self._excused.get(host.slot, 0.0)

    def begin(self, source: NfHost, successors: Sequence[NfHost], pause_s: float) -> None:
        """Begin to hand over the state of a draining host.

        Args:
            successors: one host that takes all of it, or one host for each stage.
        """
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        self._transfers[source.slot] = _Transfer(source, tuple(successors), pause_s, deadline)
        self._send(source, codec.OFFER)

    def begin_leaving(self, source: NfHost, pause_s: float) -> None:
        """Begin to give the state of a host that gets no new flows to another host."""
        self._failures.pop(source.slot, None)
        self.begin(source, (), pause_s)

    def read(self, source: NfHost, n_bytes: int) -> tuple[list[tuple[int, bytes]], bool]:
        """Pieces of a state that leaves this host, as stage and content, up to about `n_bytes`; and
        True if there are no more.

        Raises:
            ConfigError: the state cannot leave; carries the reason.
        """
        if source.slot in self._failures:
            raise ConfigError(self._failures.pop(source.slot))
        transfer = self._transfers.get(source.slot)
        if transfer is None or transfer.successors:
            raise ConfigError(
                "expected an instance that hands its state to another host",
                field="nf",
                value=source.instances[0].name,
            )
        pieces: list[tuple[int, bytes]] = []
        while transfer.step is _Step.LEAVING and transfer.pieces and n_bytes > 0:
            _, stage, piece = transfer.pieces.popleft()
            pieces.append((stage, piece))
            n_bytes -= len(piece)
        return pieces, transfer.is_whole

    def end_leaving(self, source: NfHost) -> bool:
        """Record that another host has the state, so that no more packets come here. False if it
        was too late: packets come here again.
        """
        transfer = self._transfers.get(source.slot)
        if transfer is None or not transfer.is_whole:
            return False
        del self._transfers[source.slot]
        return True

    def is_going_on(self, source: NfHost) -> bool:
        """True if the state of a host is being handed over."""
        return source.slot in self._transfers

    def cancel(self, source: NfHost) -> None:
        """Let packets go to a host as before."""
        transfer = self._transfers.pop(source.slot, None)
        if transfer is not None:
            self._unpause(transfer)

    def on_gone(self, host: NfHost) -> None:
        """Forget a host that is dead."""
        self._excused.pop(host.slot, None)
        self._failures.pop(host.slot, None)
        self._transfers.pop(host.slot, None)
        self.receipts.on_gone(host)
        for transfer in list(self._transfers.values()):
            if host in transfer.successors:
                self._fail(transfer, f"{host.instances[0].name} is gone")

    def turn(self) -> None:
        """Advance handovers after an event, and end those that take too long."""
        now = time.monotonic()
        for transfer in list(self._transfers.values()):
            if any(successor.state is not HostState.ACTIVE for successor in transfer.successors):
                self._fail(transfer, f"{transfer.successor_names} does not serve any more")
            elif now > transfer.deadline_s:
                reason = transfer.step.value.format(successors=transfer.successor_names)
                self._fail(transfer, f"{reason} in time", is_timeout=True)
            elif transfer.step is _Step.EMPTYING:
                self._ask_for_state(transfer)
            elif transfer.step is _Step.GIVING:
                self._give(transfer)
        self.receipts.turn(now)

    # ---- steps ----

    def _pause(self, transfer: _Transfer) -> None:
        transfer.is_paused = True
        transfer.deadline_s = time.monotonic() + transfer.pause_s
        transfer.step = _Step.EMPTYING
        self._plane.pause_host(transfer.source.slot, True)
        self._ask_for_state(transfer)

    def _ask_for_state(self, transfer: _Transfer) -> None:
        if self._plane.read_host(transfer.source.slot).reserved == 0:
            transfer.step = _Step.TAKING
            self._excuse(transfer.source)
            self._send(transfer.source, codec.SNAPSHOT)

    def _keep(self, transfer: _Transfer, message: codec.Message) -> None:
        if message.stage >= len(transfer.source.instances):
            raise codec.WireError(f"state of stage {message.stage}")
        is_one = len(transfer.successors) == 1
        successor = (
            transfer.successors[0 if is_one else message.stage] if transfer.successors else None
        )
        is_one |= successor is None
        transfer.pieces.append((successor, message.stage if is_one else 0, message.payload))
        transfer.n_bytes += len(message.payload)
        is_last = not message.payload and message.stage + 1 == len(transfer.source.instances)
        if transfer.n_bytes > STATE_BYTES_MAX:
            self._fail(transfer, f"its state has more than {STATE_BYTES_MAX} bytes")
        elif is_last and not transfer.successors:
            transfer.step = _Step.LEAVING
        elif is_last:
            transfer.step = _Step.GIVING
            transfer.waits_for = {successor.slot for successor in transfer.successors}
            for successor in transfer.successors:
                self._excuse(successor)
                self._send(successor, codec.RESTORE, peer=transfer.name)
            self._give(transfer)

    def _give(self, transfer: _Transfer) -> None:
        n_free = QUEUED_MAX - max(
            self._manager.attach.n_unsent(h.slot) for h in transfer.successors
        )
        for _ in range(min(n_free, len(transfer.pieces))):
            successor, stage, piece = transfer.pieces.popleft()
            assert successor is not None
            self._send(successor, codec.STATE, stage=stage, payload=piece)

    def _end(self, transfer: _Transfer) -> None:
        del self._transfers[transfer.source.slot]
        self._on_end(transfer.source, transfer.successors, None)

    def _fail(self, transfer: _Transfer, reason: str, *, is_timeout: bool = False) -> None:
        del self._transfers[transfer.source.slot]
        self._unpause(transfer)
        if transfer.successors:
            failure = HandoverFailure(reason, is_timeout)
            self._on_end(transfer.source, transfer.successors, failure)
        else:
            self._failures[transfer.source.slot] = reason

    def _unpause(self, transfer: _Transfer) -> None:
        if transfer.is_paused and transfer.source.state in (HostState.ACTIVE, HostState.DRAINING):
            self._plane.pause_host(transfer.source.slot, False)

    # ---- messages ----

    def _take(self, host: NfHost, message: codec.Message) -> None:
        """Handle a message from an NF host about its state."""
        if message.kind == codec.RELEASED:
            self._on_released(host)
        elif message.kind == codec.RESTORED or (message.kind == codec.REFUSED and message.peer):
            self._take_from_successor(host, message)
        else:
            self._take_from_source(host, message)

    def _take_from_successor(self, host: NfHost, message: codec.Message) -> None:
        self._excused.pop(host.slot, None)
        if message.kind == codec.RESTORED:  # also when it comes too late to move the flows
            self._on_received(host, message.peer)
        self.receipts.answered(host, message)
        for transfer in list(self._transfers.values()):
            if (
                host not in transfer.successors
                or transfer.name != message.peer
                or transfer.step is not _Step.GIVING
            ):
                continue
            if message.kind == codec.REFUSED:
                self._fail(transfer, f"{host.instances[0].name}: {reason_of(message)}")
            else:
                transfer.waits_for.discard(host.slot)
                if not transfer.waits_for:
                    self._end(transfer)

    def _take_from_source(self, host: NfHost, message: codec.Message) -> None:
        transfer = self._transfers.get(host.slot)
        if transfer is None:  # cancelled meanwhile, or too late
            return
        if message.kind == codec.REFUSED:
            self._excused.pop(host.slot, None)
            self._fail(transfer, reason_of(message))
        elif message.kind == codec.OFFER and transfer.step is _Step.ASKED:
            self._pause(transfer)
        elif message.kind == codec.STATE and transfer.step is _Step.TAKING:
            self._keep(transfer, message)

    def _excuse(self, host: NfHost) -> None:
        self._excused[host.slot] = time.monotonic() + EXCUSED_S

    def _send(self, host: NfHost, kind: int, **parts: int | str | bytes) -> None:
        self._manager.send(host, codec.pack_message(kind, **parts))  # type: ignore[arg-type]
