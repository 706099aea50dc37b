"""Questions to NFs about lists of their state: onvm nf show, onvm nf kill.

Threads: the manager's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.question_messages import (
    ENTRIES_MAX,
    Entry,
    InstanceAnswer,
    ListMoreRequest,
    ListRequest,
    QuestionReply,
)
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_sdk.errors import ConfigError

__all__ = ["Questions"]

ANSWER_BYTES_MAX = 16 << 20
KEPT_S = 60.0
"""Seconds after which a question is forgotten whose answers no client has fetched."""


class _Answer(msgspec.Struct):
    """The JSON that an NF host sends; its entries are not looked into."""

    entries: list[Entry] = []
    has_more: bool = False
    killed: int = 0
    lists: dict[str, str] = {}
    error: str = ""


@dataclass(slots=True, eq=False)
class _Part:
    """The part of a question that is for one instance."""

    host: NfHost
    stage: int
    instance: str
    content: bytearray = field(default_factory=bytearray)
    answer: InstanceAnswer | None = None

    def read(self) -> InstanceAnswer:
        try:
            told = msgspec.json.decode(self.content, type=_Answer)
        except msgspec.DecodeError as error:
            return InstanceAnswer(self.instance, error=f"it does not answer as agreed: {error}")
        return InstanceAnswer(
            self.instance,
            told.entries[:ENTRIES_MAX],
            told.has_more,
            told.killed,
            told.lists,
            told.error,
        )


@dataclass(slots=True, eq=False)
class _Question:
    parts: list[_Part]
    asked_s: float


class Questions:
    """The questions whose answers have not been fetched.

    Args:
        known: gives the end of the message about a wrong name.
    """

    def __init__(self, manager: Manager, known: Callable[[], str]) -> None:
        self._manager = manager
        self._known = known
        self._number = 0
        self._open: dict[int, _Question] = {}
        manager.on_answer = self._take

    @property
    def handlers(self) -> Mapping[type, Callable[[Any], m.Reply]]:
        """A function for each kind of request."""
        return {ListRequest: self._ask, ListMoreRequest: self._answer}

    def _ask(self, request: ListRequest) -> QuestionReply:
        now_s = time.monotonic()
        self._open = {
            number: one for number, one in self._open.items() if now_s - one.asked_s < KEPT_S
        }
        parts = [
            _Part(host, stage, host.instances[stage].name)
            for host, stage in self._manager.registry.find(request.name)
        ]
        if not parts:
            raise ConfigError(self._known(), field="nf show", value=request.name)
        self._number += 1
        asked = {
            "list": request.list,
            "where": request.where,
            "first": request.first,
            "limit": request.limit,
            "kills": request.kills,
        }
        payload = msgspec.json.encode(asked)
        for part in parts:
            message = codec.pack_message(
                codec.QUESTION, stage=part.stage, peer=str(self._number), payload=payload
            )
            self._manager.send(part.host, message)
        self._open[self._number] = _Question(parts, now_s)
        return QuestionReply(number=self._number, is_over=False)

    def _take(self, host: NfHost, message: codec.Message) -> None:
        question = self._open.get(int(message.peer)) if message.peer.isdecimal() else None
        for part in question.parts if question is not None else ():
            if part.host is not host or part.stage != message.stage or part.answer is not None:
                continue
            part.content += message.payload
            if len(part.content) > ANSWER_BYTES_MAX:
                part.answer = InstanceAnswer(part.instance, error="its answer is too long")
            elif not message.payload:
                part.answer = part.read()

    def _answer(self, request: ListMoreRequest) -> QuestionReply:
        question = self._open.get(request.number)
        if question is None:
            raise ConfigError(
                "expected a question that is open", field="answer", value=request.number
            )
        for part in question.parts:
            if part.answer is None and part.host.state is HostState.DEAD:
                part.answer = InstanceAnswer(part.instance, error="it has ended")
        answers = [part.answer for part in question.parts if part.answer is not None]
        is_over = len(answers) == len(question.parts)
        if is_over:
            del self._open[request.number]
        return QuestionReply(
            number=request.number, is_over=is_over, answers=answers if is_over else []
        )
