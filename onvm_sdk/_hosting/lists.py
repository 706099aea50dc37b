"""Lists of an NF's state, as users ask for them while it serves.

A question names a list, what entries must look like, and how many are wanted. Entries are taken
from the NF's `show` a few at a time between bursts, so that packets wait no longer than a fraction
of a millisecond, however long the list is.

Threads: the thread of the NF host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from onvm_sdk._hosting.author import describe
from onvm_sdk._native.nf import MessageType
from onvm_sdk.errors import ConfigError, NativeError

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from onvm_sdk._native.nf import Host, Message
    from onvm_sdk.nf import NetworkFunction

__all__ = ["Question", "Questions"]

TURN_NS = 200_000
"""Time for which packets wait for entries; one entry more may be taken."""
ENTRIES_MAX = 10_000
"""Entries of one answer."""
PIECE_BYTES = 16_000
_QUESTIONS_MAX = 8

Entry = Mapping[str, "str | int | float | bool"]


def _matcher(field: str, wanted: str) -> Callable[[object], bool]:
    """Make a test for that text, or for an address of that network."""
    if "/" in wanted:
        from ipaddress import ip_address, ip_network

        try:
            network = ip_network(wanted)
        except ValueError:
            raise ConfigError(
                "expected a network, host bits zero", field=field, value=wanted
            ) from None

        def is_inside(value: object) -> bool:
            try:
                return ip_address(str(value)) in network
            except ValueError:
                return False

        return is_inside
    return lambda value: str(value).lower() == wanted.lower()


def _shown(entry: Entry) -> dict[str, Any]:
    return {field: value for field, value in entry.items() if not field.startswith("_")}


class Question:
    """A question about a list, and its answer as far as it goes.

    Args:
        kills: entries are removed rather than shown.
        where: the wanted value, by the name of its field.

    Raises:
        ConfigError: the NF has no such list, or a filter is not possible.
    """

    def __init__(
        self,
        nf: NetworkFunction,
        what: str,
        where: Mapping[str, str],
        *,
        first: int = 0,
        limit: int = ENTRIES_MAX,
        kills: bool = False,
    ) -> None:
        if what not in nf.lists:
            known = ", ".join(nf.lists) or "it has none"
            raise ConfigError(f"expected a list of the NF ({known})", field="list", value=what)
        self._filters = {field: _matcher(field, wanted) for field, wanted in where.items()}
        self._nf, self._what, self._kills = nf, what, kills
        self._skip, self._limit = first, min(limit, ENTRIES_MAX)
        self._entries: Iterator[Entry] = iter(nf.show(what))
        self._is_checked = False
        self.found: list[Entry] = []
        self.killed = 0
        self.has_more = False
        """True if there are entries behind those that were wanted."""
        self.is_over = False

    def work(self, until_ns: int) -> None:
        """Look at entries until a time of the monotonic clock.

        Raises:
            ConfigError: a filter names a field that entries do not have.
        """
        while not self.is_over:
            entry = next(self._entries, None)
            if entry is None:
                self.is_over = True
                return
            self._take(entry)
            if time.monotonic_ns() >= until_ns:
                return

    def _take(self, entry: Entry) -> None:
        if not self._is_checked:
            self._check_fields(entry)
        if not all(matches(entry[field]) for field, matches in self._filters.items()):
            return
        if self._kills:
            self.killed += bool(self._nf.kill(self._what, entry))
        elif self._skip:
            self._skip -= 1
        elif len(self.found) < self._limit:
            self.found.append(entry)
        else:
            self.has_more = self.is_over = True

    def _check_fields(self, entry: Entry) -> None:
        self._is_checked = True
        for field in self._filters:
            if field not in _shown(entry):
                raise ConfigError(
                    f"expected a field of {self._what} ({', '.join(_shown(entry))})",
                    field="--where",
                    value=field,
                )

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The entries that were found, as users see them."""
        return [_shown(entry) for entry in self.found]

    @property
    def answer(self) -> dict[str, Any]:
        """The answer as the manager is told it."""
        return {"entries": self.entries, "has_more": self.has_more, "killed": self.killed}


class Questions:
    """The questions that an NF host has not answered yet.

    Args:
        host: the attachment, for answers.
        nfs: the stages, in chain order.
    """

    def __init__(self, host: Host, nfs: Sequence[NetworkFunction]) -> None:
        self._host = host
        self._nfs = nfs
        self._open: list[tuple[int, str, Question]] = []

    @property
    def is_busy(self) -> bool:
        """True if a question waits for its answer."""
        return bool(self._open)

    def take(self, message: Message) -> None:
        """Handle a question of the manager: JSON."""
        import json

        if message.stage >= len(self._nfs):
            return
        nf = self._nfs[message.stage]
        asked = json.loads(message.payload)
        if not asked["list"]:
            self._say(message.stage, message.peer, {"lists": dict(nf.lists)})
            return
        try:
            if len(self._open) >= _QUESTIONS_MAX:
                raise ConfigError(f"expected at most {_QUESTIONS_MAX} questions at a time")
            question = Question(
                nf,
                asked["list"],
                asked["where"],
                first=asked["first"],
                limit=asked["limit"],
                kills=asked["kills"],
            )
        except Exception as error:  # a user's mistake, or the author's: it is told
            self._fail(message.stage, message.peer, error)
        else:
            self._open.append((message.stage, message.peer, question))

    def turn(self) -> None:
        """Work a little on the question that was asked first."""
        if not self._open:
            return
        stage, number, question = self._open[0]
        try:
            question.work(time.monotonic_ns() + TURN_NS)
        except Exception as error:  # likewise
            self._open.pop(0)
            self._fail(stage, number, error)
            return
        if question.is_over:
            self._open.pop(0)
            self._say(stage, number, question.answer)
        else:
            self._open.append(self._open.pop(0))

    def _fail(self, stage: int, number: str, error: Exception) -> None:
        text = str(error) if isinstance(error, ConfigError) else describe(error, self._nfs[stage])
        self._say(stage, number, {"error": text})

    def _say(self, stage: int, number: str, answer: Mapping[str, Any]) -> None:
        import json

        text = json.dumps(answer).encode()
        try:
            for at in range(0, len(text), PIECE_BYTES):
                self._host.send(MessageType.ANSWER, stage, number, text[at : at + PIECE_BYTES])
            self._host.send(MessageType.ANSWER, stage, number)
        except NativeError:  # the manager is gone, and its question with it
            self._open.clear()
