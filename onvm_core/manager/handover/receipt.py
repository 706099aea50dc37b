"""The state of NF hosts of other machines, on its way to successors here.

It comes from the agent in pieces. The successor gets them like the pieces of a sibling's state
(`handover`), restores them between two bursts and confirms that. The source's number in the cluster
stands for its name.

Threads: the manager's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import STATE_BYTES_MAX

__all__ = ["QUEUED_MAX", "StateReceipts", "reason_of"]

QUEUED_MAX = 64
"""Maximum number of pieces on their way to a successor at a time."""
KEPT_S = 60.0
"""Time for which the outcome of a transfer can be read."""


@dataclass(slots=True, eq=False)
class _Receipt:
    successor: NfHost
    until_s: float
    pieces: deque[tuple[int, bytes]] = field(default_factory=deque)
    n_bytes: int = 0
    step: Literal["waiting", "done", "failed"] = "waiting"
    reason: str = ""


class StateReceipts:
    """All transfers in progress.

    Args:
        excuse: is called with a successor that may be busy for a moment.
    """

    def __init__(self, manager: Manager, excuse: Callable[[NfHost], None]) -> None:
        self._manager = manager
        self._excuse = excuse
        self._all: dict[str, _Receipt] = {}

    @staticmethod
    def name_of(source: int) -> str:
        """The name of the source that the successor sees."""
        return f"@{source}"

    def give(
        self, successor: NfHost, source: int, pieces: Sequence[tuple[int, bytes]], *, is_first: bool
    ) -> None:
        """Give pieces of the state of `source` to a host; the first one starts over.

        Raises:
            ConfigError: the host does not serve, or the state is too large.
        """
        name = self.name_of(source)
        if is_first:
            if successor.state is not HostState.ACTIVE:
                raise ConfigError(
                    "expected a serving instance",
                    field="successor",
                    value=successor.instances[0].name,
                )
            self._all[name] = _Receipt(successor, time.monotonic() + KEPT_S)
            self._send(successor, codec.RESTORE, peer=name)
        one = self._all.get(name)
        if one is None or one.successor is not successor:
            raise ConfigError("expected a state that has begun", field="state", value=name)
        one.n_bytes += sum(len(piece) for _, piece in pieces)
        if one.n_bytes > STATE_BYTES_MAX:
            del self._all[name]
            raise ConfigError(
                f"expected at most {STATE_BYTES_MAX} bytes of state", field="state", value=name
            )
        one.pieces.extend(pieces)
        self._excuse(successor)
        self._pass_on(one)

    def look(self, source: int) -> tuple[Literal["waiting", "done", "failed"], str]:
        """The step of the takeover of the state of `source`, and the reason of a failure."""
        one = self._all.get(self.name_of(source))
        return ("failed", "it is not known") if one is None else (one.step, one.reason)

    def turn(self, now: float) -> None:
        """Send pieces that waited for a full socket, and drop outcomes that are long past."""
        for name, one in list(self._all.items()):
            if now > one.until_s:
                del self._all[name]
            else:
                self._pass_on(one)

    def on_gone(self, host: NfHost) -> None:
        """Forget a host that is dead."""
        for one in self._all.values():
            if one.successor is host and one.step == "waiting":
                one.step, one.reason = "failed", f"{host.instances[0].name} is gone"

    def answered(self, host: NfHost, message: codec.Message) -> None:
        """Take the answer of a host: it has restored a state, or it refuses."""
        one = self._all.get(message.peer)
        if one is None or one.successor is not host or one.step != "waiting":
            return
        if message.kind == codec.REFUSED:
            one.step = "failed"
            one.reason = f"{host.instances[0].name}: {reason_of(message)}"
        else:
            one.step = "done"

    def _pass_on(self, one: _Receipt) -> None:
        n_free = QUEUED_MAX - self._manager.attach.n_unsent(one.successor.slot)
        for _ in range(min(n_free, len(one.pieces))):
            stage, piece = one.pieces.popleft()
            self._send(one.successor, codec.STATE, stage=stage, payload=piece)

    def _send(self, host: NfHost, kind: int, **parts: int | str | bytes) -> None:
        self._manager.send(host, codec.pack_message(kind, **parts))  # type: ignore[arg-type]


def reason_of(message: codec.Message) -> str:
    """The reason of an NF host's refusal, as text for people."""
    text = message.payload.decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text) or "it gave no reason"
