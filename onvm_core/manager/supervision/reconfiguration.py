"""New configurations for NF hosts that serve: all of one change take theirs, or none does.

The steps of a round, each of which begins only when the one before is done everywhere:

1. each NF host gets the configurations of its NFs, in pieces, and prepares them while packets flow;
2. the caller looks at the outcome, and cancels the change or lets it go on;
3. each NF host uses what it has prepared, between two bursts.

If an NF host refuses in step 3, a second round brings all of them back to what they had. An NF host
that dies meanwhile is started again with the configuration that its description has then.

Threads: the manager's.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from onvm_core.manager.config.nf_config import NfSettings
from onvm_core.manager.handover.receipt import QUEUED_MAX
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.supervision.supervised import Supervised
from onvm_sdk.errors import ConfigError

__all__ = ["Reconfiguration", "Target"]

log = logging.getLogger("onvm.reconfiguration")

PIECE_BYTES = 16_000
PREPARE_TIMEOUT_S = 120.0
APPLY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """An NF that gets a configuration.

    Attributes:
        stage: its number in its NF host.
        after, before: the configuration that it gets, and the one that it has.
    """

    nf: Supervised
    stage: int
    after: NfSettings
    before: NfSettings
    needs_more: bool = False
    """True if the new one needs more memory, which its NF host must not have."""


class _Step(Enum):
    PREPARING = "did not prepare its configuration"
    PREPARED = ""
    APPLYING = "did not take its configuration"
    OVER = " "


@dataclass(slots=True, eq=False)
class _Part:
    """The part of a change that is about one NF host."""

    nf: Supervised
    contents: dict[int, NfSettings]
    host: NfHost | None = None
    pieces: deque[tuple[int, bytes]] = field(default_factory=deque)
    missing: set[int] = field(default_factory=set)
    """Stages that have not prepared yet."""
    is_unable: bool = False
    is_applied: bool = False

    @property
    def is_gone(self) -> bool:
        """True if its process runs no more; the next one reads the configuration of then."""
        return self.nf.handle is None or self.nf.is_stopping

    @property
    def is_prepared(self) -> bool:
        return self.is_gone or self.is_unable or (self.host is not None and not self.missing)


class Reconfiguration:
    """Carries out one change at a time.

    Attributes:
        failure: the mistake because of which nothing has changed.
        unable: NF hosts with an NF that can take no new configuration while it serves.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._number = 0
        self._targets: list[Target] = []
        self._parts: list[_Part] = []
        self._step = _Step.OVER
        self._is_undoing = False
        self._deadline_s = 0.0
        self.failure: ConfigError | None = None
        self.unable: list[Supervised] = []
        manager.on_config_message = self._take

    def begin(self, targets: Iterable[Target]) -> None:
        """Let the NFs of `targets` prepare their new configurations."""
        self._targets = list(targets)
        self._is_undoing = False
        self.failure, self.unable = None, []
        for target in self._targets:
            if target.needs_more and target.nf not in self.unable:
                self.unable.append(target.nf)
        self._begin_round(lambda target: target.after)

    def _begin_round(self, wanted: Callable[[Target], NfSettings]) -> None:
        self._number += 1
        parts: dict[int, _Part] = {}
        for target in self._targets:
            part = parts.setdefault(id(target.nf), _Part(target.nf, {}))
            part.contents[target.stage] = wanted(target)
        self._parts = [part for part in parts.values() if part.nf not in self.unable]
        self._step = _Step.PREPARING
        self._deadline_s = time.monotonic() + PREPARE_TIMEOUT_S
        self.turn()

    @property
    def is_prepared(self) -> bool:
        """True if every NF host has prepared, or is in `unable`."""
        return self._step is _Step.PREPARED

    @property
    def is_over(self) -> bool:
        """True if nothing is going on."""
        return self._step is _Step.OVER

    def is_excused(self, host: NfHost) -> bool:
        """True if a host that makes no progress may be swapping tables."""
        return self._step is _Step.APPLYING and any(part.host is host for part in self._parts)

    def apply(self) -> None:
        """Let all of them use what they have prepared."""
        self._step = _Step.APPLYING
        self._deadline_s = time.monotonic() + APPLY_TIMEOUT_S
        for part in self._parts:
            if part.host is not None and not part.is_gone and not part.is_unable:
                self._send(part.host, codec.APPLY)
        self.turn()

    def cancel(self) -> None:
        """Let all of them forget what they have prepared."""
        for part in self._parts:
            if part.host is not None and not part.is_gone:
                self._send(part.host, codec.CANCEL)
        self._parts, self._step = [], _Step.OVER

    def turn(self) -> None:
        """Advance the change after an event, and end one that takes too long."""
        if self._step in (_Step.OVER, _Step.PREPARED):
            return
        if self._step is _Step.PREPARING:
            for part in self._parts:
                self._give(part)
            if all(part.is_prepared for part in self._parts):
                self._step = _Step.PREPARED
                if self._is_undoing:
                    self.apply()
                return
        elif all(part.is_applied or part.is_gone or part.is_unable for part in self._parts):
            self._parts, self._step = [], _Step.OVER
            return
        if time.monotonic() > self._deadline_s:
            late = next(p for p in self._parts if not (p.is_prepared and p.is_applied))
            name = "+".join(late.nf.wanted.instances)
            self._fail(ConfigError(f"expected an answer: {name} {self._step.value} in time"))

    def _give(self, part: _Part) -> None:
        host = part.nf.host
        if part.is_gone or host is None or host.state is HostState.DEAD:
            return
        if part.host is not host:  # also if its process has been started again meanwhile
            part.host, part.missing = host, set(part.contents)
            part.pieces.clear()
            for stage, settings in sorted(part.contents.items()):
                content = settings.content
                for first in range(0, len(content), PIECE_BYTES):
                    part.pieces.append((stage, content[first : first + PIECE_BYTES]))
                part.pieces.append((stage, b""))
        n_free = QUEUED_MAX - self._manager.attach.n_unsent(host.slot)
        for _ in range(min(n_free, len(part.pieces))):
            stage, piece = part.pieces.popleft()
            self._send(host, codec.CONFIG, stage=stage, payload=piece)

    def _fail(self, error: ConfigError) -> None:
        """End a round; after step 3 all go back, unless they just do."""
        is_applying = self._step is _Step.APPLYING
        self.cancel()
        if self._is_undoing:
            log.error("not every NF has its old configuration: %s", error)
            return
        self.failure = error
        if is_applying:
            self._is_undoing = True
            self._begin_round(lambda target: target.before)

    def _take(self, host: NfHost, message: codec.Message) -> None:
        """Handle a message from an NF host about its configuration."""
        part = next((part for part in self._parts if part.host is host), None)
        if part is None or message.peer != str(self._number):
            return  # of an earlier change
        if message.kind == codec.DECLINED and not message.payload:
            part.is_unable = True
            if part.nf not in self.unable:
                self.unable.append(part.nf)
        elif message.kind == codec.DECLINED:
            settings = part.contents.get(message.stage)
            if settings is None:
                raise codec.WireError(f"configuration of stage {message.stage}")
            self._fail(settings.mistake(_mistake(message.payload)))
        elif message.kind == codec.PREPARED:
            part.missing.discard(message.stage)
        elif self._step is _Step.APPLYING:
            part.is_applied = True
        self.turn()

    def _send(self, host: NfHost, kind: int, **parts: int | bytes) -> None:
        message = codec.pack_message(kind, peer=str(self._number), **parts)  # type: ignore[arg-type]
        self._manager.send(host, message)


def _mistake(payload: bytes) -> ConfigError:
    """Read the reason of an NF host, which nothing has checked."""
    try:
        given = json.loads(payload)
        expected, name, value = (given.get(key) for key in ("expected", "field", "value"))
    except (ValueError, AttributeError):
        expected, name, value = None, None, None
    text = _line(expected) if isinstance(expected, str) else ""
    return ConfigError(
        text or "expected one that it can use; it gave no reason",
        field=_line(name) if isinstance(name, str) else None,
        value=_line(value) if isinstance(value, str) else value,
    )


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
