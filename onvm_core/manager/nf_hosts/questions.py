"""Questions of users to NFs, and the replies: messages that `on_message` answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_sdk.errors import ConfigError

__all__ = ["Questions"]

QUESTIONS_MAX = 64
"""Questions that are remembered; older ones are forgotten."""


class Questions:
    """The last questions and their replies.

    Args:
        send: sends a message to a host.

    Threads: the manager's.
    """

    def __init__(self, send: Callable[[NfHost, bytes], None]) -> None:
        self._send = send
        self._next = 1
        self._replies: OrderedDict[int, dict[str, str | None]] = OrderedDict()
        self._waiting: dict[int, set[str]] = {}

    def ask(self, targets: Iterable[tuple[NfHost, int]], payload: bytes) -> tuple[int, int]:
        """Ask some instances.

        Args:
            targets: hosts, and stages in them.

        Returns:
            The number of the question, and how many instances were asked.
        """
        number = self._next
        self._next += 1
        names = set()
        for host, stage in targets:
            message = codec.pack_message(codec.ASK, stage=stage, peer=str(number), payload=payload)
            self._send(host, message)
            names.add(host.instances[stage].name)
        self._replies[number] = {}
        self._waiting[number] = names
        if len(self._replies) > QUESTIONS_MAX:
            forgotten, _ = self._replies.popitem(last=False)
            del self._waiting[forgotten]
        return number, len(names)

    def take(self, host: NfHost, message: codec.Message) -> None:
        """Take a reply of a host."""
        if message.stage >= len(host.instances):
            raise codec.WireError(f"message of stage {message.stage}")
        number = int(message.peer) if message.peer.isdecimal() else 0
        name = host.instances[message.stage].name
        if name not in self._waiting.get(number, ()):
            return  # too late, or nothing was asked
        self._waiting[number].discard(name)
        text = message.payload[1:].decode(errors="replace") if message.payload else None
        self._replies[number][name] = text

    def replies(self, number: int) -> tuple[dict[str, str | None], list[str]]:
        """The replies so far by instance, None where there is none; and the instances that have
        not answered yet.

        Raises:
            ConfigError: the question is not known, or not any more.
        """
        if number not in self._replies:
            raise ConfigError("expected a question of this manager", field="ask", value=number)
        return self._replies[number], sorted(self._waiting[number])

    def forget(self, host: NfHost) -> None:
        """Wait no longer for a host that is gone."""
        names = {instance.name for instance in host.instances}
        for waiting in self._waiting.values():
            waiting.difference_update(names)
