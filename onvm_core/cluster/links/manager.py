"""The link to the manager: its control socket, and nothing else.

A manager may end, restart, hang or be older than the agent. Then there is no answer, and the agent
asks again. A connection on which an answer came too late is not used again, because that answer
would be taken for the answer to the next request.

Threads: one for each link; a manager takes as many links as there are.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeVar

import zmq

from onvm_core.manager.api.client import Client, NoManagerError
from onvm_core.manager.api.config_messages import ChangeReply
from onvm_core.manager.api.directory import EVENT_SOCKET
from onvm_core.manager.api.messages import (
    ClusterApplyRequest,
    ClusterChangeRequest,
    ClusterLocalReply,
    ClusterLocalRequest,
    ClusterReply,
    DoneReply,
    InstancesReply,
    InstancesRequest,
    NfRunRequest,
    NfStopRequest,
    Request,
)
from onvm_core.manager.api.server import endpoint
from onvm_core.manager.api.state_messages import (
    NfDrainRequest,
    NfReplaceRequest,
    StateDoneRequest,
    StateGivenRequest,
    StateGiveRequest,
    StatePiece,
    StateReadRequest,
    StateReply,
    StateTakeRequest,
)
from onvm_core.manager.cluster_view.view import ClusterView
from onvm_core.manager.cluster_view.view_change import ViewChange
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["ManagerLink"]

TIMEOUT_S = 2.0
RETRY_S = 0.2

ReplyT = TypeVar("ReplyT")


class ManagerLink:
    """Asks one manager; a context manager.

    Args:
        directory: directory of the manager.
    """

    def __init__(self, directory: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._directory = directory
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._retry_at_s = 0.0

    def __enter__(self) -> ManagerLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def another(self) -> ManagerLink:
        """Another link to the same manager, for another thread."""
        return ManagerLink(self._directory, self._timeout_s)

    @property
    def is_up(self) -> bool:
        """True if the manager that answered last is alive."""
        return self._client is not None and self._client.process.is_alive

    def processes(self) -> list[int]:
        """The process of the manager that answered last."""
        return [] if self._client is None else [self._client.process.pid]

    def _ask(
        self, request: Request, expected: type[ReplyT], timeout_s: float | None = None
    ) -> ReplyT:
        """Send a request and return the reply.

        Raises:
            NoManagerError: there is no manager.
            ConfigError: it refuses.
            OnvmError: it does not answer.
        """
        if self._client is not None and not self._client.process.is_alive:
            self.close()
        if self._client is None:
            now = time.monotonic()
            if now < self._retry_at_s:
                raise NoManagerError(
                    "expected a running manager", field="manager", value=self._directory.name
                )
            self._retry_at_s = now + RETRY_S
            self._client = Client(self._directory)
        try:
            return self._client.ask(request, expected, timeout_s or self._timeout_s)
        except ConfigError:
            raise
        except OnvmError:
            self.close()
            raise

    def local(self) -> ClusterLocalReply:
        """The facts about the manager that the cluster needs."""
        return self._ask(ClusterLocalRequest(), ClusterLocalReply)

    def apply(self, view: ClusterView | None) -> ClusterReply:
        """Make the manager's tables equal to a view."""
        return self._ask(ClusterApplyRequest(view=view), ClusterReply, 3 * self._timeout_s)

    def change(self, revision: int, change: ViewChange) -> ClusterReply:
        """Apply a change to the view of that revision, which the manager has.

        Raises:
            ConfigError: it has another revision; it needs the whole view.
        """
        request = ClusterChangeRequest(revision=revision, change=change)
        return self._ask(request, ClusterReply, 3 * self._timeout_s)

    def run(self, nf: str, number: int) -> InstancesReply:
        """Start instance `number` of an NF."""
        return self._ask(NfRunRequest(name=nf, instance=number), InstancesReply)

    def stop(self, instance: str) -> InstancesReply:
        """Let an instance finish and leave."""
        return self._ask(NfStopRequest(name=instance), InstancesReply)

    def drain(self, instance: str) -> None:
        """Let an instance end with its flows, or when its state is elsewhere."""
        self._ask(NfDrainRequest(name=instance), DoneReply)

    def replace(self, instance: str, avoided: list[str]) -> None:
        """Have an instance of another name take the place of one; it gets no flows meanwhile."""
        self._ask(NfReplaceRequest(name=instance, avoided=avoided), ChangeReply)

    # ---- state that moves ----

    def take_state(self, instance: str, pause_ms: int) -> None:
        """Suspend an instance, and take its state."""
        self._ask(StateTakeRequest(instance=instance, pause_ms=pause_ms), DoneReply)

    def read_state(self, instance: str) -> StateReply:
        """Read some of the state that was taken."""
        return self._ask(StateReadRequest(instance=instance), StateReply)

    def end_state(self, instance: str, successor: int | None) -> None:
        """Tell which NF host has the state now; None: packets go to the instance again."""
        self._ask(StateDoneRequest(instance=instance, successor=successor), DoneReply)

    def give_state(
        self, instance: str, source: int, pieces: list[StatePiece], *, is_first: bool
    ) -> None:
        """Give an instance pieces of the state of another."""
        self._ask(
            StateGiveRequest(instance=instance, source=source, pieces=pieces, is_first=is_first),
            DoneReply,
        )

    def state_given(self, instance: str, source: int) -> StateReply:
        """Tell if it has taken the state over."""
        return self._ask(StateGivenRequest(instance=instance, source=source), StateReply)

    def launched(self) -> InstancesReply:
        """The launched NF hosts, in any state."""
        return self._ask(InstancesRequest(), InstancesReply)

    def subscribe(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        """A socket that receives a message when an NF host or a chain has changed.

        It reconnects by itself when another manager starts.
        """
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe(b"")
        socket.connect(endpoint(self._directory / EVENT_SOCKET))
        return socket
