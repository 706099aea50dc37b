"""NF hosts without a process, and a manager over a data plane in memory that they attach to.

A `FakeNf` speaks over the real attach socket. It answers when it is given a turn, so a test sees
each step.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onvm_core.dataplane.fake import FakeDataPlane
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import Launchers, LaunchSpec
from onvm_core.launch.limits import LimitMode, Limits
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.placement.policy import Decision, FreeResources, Need
from onvm_core.plugins import Offer

__all__ = ["AnyCpu", "FakeHandle", "FakeLauncher", "FakeNf", "PlaneMaker", "until"]

CPUS = sorted(os.sched_getaffinity(0))


def hello(services: Sequence[str], instances: Sequence[str], secret: str) -> bytes:
    """An attach message."""
    names = [*instances, *[""] * (len(services) - len(instances))]
    stages = b"".join(
        struct.pack("=32s32s1028x", service.encode(), name.encode())
        for service, name in zip(services, names, strict=True)
    )
    numbers = (codec.MAGIC, codec.VERSION, len(services), 0, 32, os.getpid(), 0)
    head = struct.pack("=7I64s", *numbers, secret.encode())
    return (head + stages).ljust(codec.HELLO_BYTES, b"\0")


class FakeNf:
    """An NF host that attaches and does what it is told.

    Args:
        state: what it hands over, a list of pieces for each stage; None: it cannot.

    Attributes:
        heard: messages of the manager, oldest first, but for those about ports and services.
        ports: payload of the last message about ports.
        restored: state that it was given, by the name it came under.
        configs: configurations that it uses, by stage, as the manager has sent them.
        declines: the step at which it refuses a configuration: prepare, use, or None.
        is_fixed: it can take no configuration while it serves.
    """

    def __init__(
        self,
        attach_path: Path,
        services: Sequence[str],
        instances: Sequence[str] = (),
        *,
        secret: str = "",
        state: Sequence[Sequence[bytes]] | None = None,
    ) -> None:
        self.state = state
        self.heard: list[codec.Message] = []
        self.services = ""
        self.restored: dict[str, list[bytes]] = {}
        self.configs: dict[int, bytes] = {}
        self.declines: str | None = None
        self.is_fixed = False
        self._prepared: dict[int, bytes] = {}
        self.refusal = ""
        self.ports = b""
        self.is_attached = False
        self.is_ready = True
        self.is_deaf = False
        self._n_stages = len(services)
        self._restoring = ""
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._socket.connect(str(attach_path))
        self._socket.send(hello(services, instances, secret))

    @property
    def is_gone(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        self._socket.close()

    def say(self, kind: int, *, stage: int = 0, peer: str = "", payload: bytes = b"") -> None:
        self._socket.send(codec.pack_message(kind, stage=stage, peer=peer, payload=payload))

    def turn(self) -> None:
        """Read what has come, and answer."""
        while not self.is_gone and not self.is_deaf:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, codec.HELLO_BYTES, 32)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, fds = b"", []
            for fd in fds:
                os.close(fd)
            if not data:
                self.close()
            elif not self.is_attached:
                self._on_reply(data)
            else:
                self._on_message(codec.unpack_message(data))

    def _on_reply(self, data: bytes) -> None:
        result = struct.unpack_from("=i", data, 8)[0]
        if result < 0:
            self.refusal = data[-512:].partition(b"\0")[0].decode()
            self.close()
            return
        self.is_attached = True
        if self.is_ready:
            self.say(codec.READY)

    def _on_message(self, message: codec.Message) -> None:
        if message.kind == codec.PORTS:
            self.ports = message.payload
            return
        if message.kind == codec.SERVICES:
            self.services = message.payload.decode()
            return
        self.heard.append(message)
        match message.kind:
            case codec.STOP:
                self.close()
            case codec.DRAIN:
                self.say(codec.DRAINED, stage=message.stage)
            case codec.OFFER if self.state is None:
                self.say(codec.REFUSED, payload=b"no snapshot")
            case codec.OFFER:
                self.say(codec.OFFER)
            case codec.SNAPSHOT:
                for stage, pieces in enumerate(self.state or ()):
                    for piece in (*pieces, b""):
                        self.say(codec.STATE, stage=stage, payload=piece)
            case codec.RESTORE:
                self._restoring = message.peer
                self.restored[message.peer] = []
            case codec.CONFIG if message.payload:
                before = self._prepared.get(message.stage, b"")
                self._prepared[message.stage] = before + message.payload
            case codec.CONFIG if self.is_fixed:
                self.say(codec.DECLINED, stage=message.stage, peer=message.peer)
            case codec.CONFIG if self.declines == "prepare":
                self._decline(message)
            case codec.CONFIG:
                self.say(codec.PREPARED, stage=message.stage, peer=message.peer)
            case codec.APPLY if self.declines == "use":
                self.declines = None  # it can go back to what it has
                self._prepared = {}
                self._decline(message)
            case codec.APPLY:
                self.configs |= self._prepared
                self._prepared = {}
                self.say(codec.APPLIED, peer=message.peer)
            case codec.CANCEL:
                self._prepared = {}
            case codec.STATE if message.payload:
                self.restored[self._restoring].append(message.payload)
            case codec.STATE if message.stage + 1 == self._n_stages:
                self.say(codec.RESTORED, peer=self._restoring)

    def _decline(self, message: codec.Message) -> None:
        reason = b'{"expected": "expected another one", "field": "port", "value": 9}'
        self.say(codec.DECLINED, stage=message.stage, peer=message.peer, payload=reason)

    def kinds(self) -> list[int]:
        return [message.kind for message in self.heard]


class FakeHandle:
    """A launched `FakeNf`; being asked whether it lives is its turn."""

    pid = 0

    def __init__(self, spec: LaunchSpec, nf: FakeNf | None) -> None:
        self.spec = spec
        self.nf = nf
        self.status: int | None = None if nf is not None else 1

    def poll(self) -> int | None:
        if self.nf is not None:
            self.nf.turn()
            if self.nf.is_gone and self.status is None:
                self.status = 0
        return self.status

    def stop(self) -> None:
        self.kill()

    def wait(self, timeout_s: float) -> int | None:
        del timeout_s
        return self.poll()

    def kill(self) -> None:
        if self.nf is not None:
            self.nf.close()
        if self.status is None:
            self.status = -9

    def log_tail(self) -> list[str]:
        return ["it said this"]


class FakeLauncher:
    """Starts `FakeNf`s; the service of an NF is its name.

    Attributes:
        handles: of all that were launched, oldest first.
        states: what NFs hand over, by instance.
        fails: whether what is launched ends at once.
        fixed: NFs that can take no configuration while they serve.
    """

    def __init__(self) -> None:
        self.handles: list[FakeHandle] = []
        self.states: dict[str, list[list[bytes]]] = {}
        self.fails = False
        self.fixed: set[str] = set()

    def obstacle(self) -> str:
        return ""

    def unenforced(self, limits: Limits) -> Mapping[str, str]:
        del limits
        return {}

    def launch(self, spec: LaunchSpec) -> FakeHandle:
        state = self.states.get(spec.instances[0]) if spec.instances else None
        nf = None
        if not self.fails:
            nf = FakeNf(spec.attach_path, spec.nfs, spec.instances, secret=spec.secret, state=state)
            nf.is_fixed = not self.fixed.isdisjoint(spec.nfs)
        self.handles.append(FakeHandle(spec, nf))
        return self.handles[-1]

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> FakeHandle:
        del process
        return self.launch(spec)

    def clean(self, spec: LaunchSpec) -> None:
        pass

    def launchers(self) -> Launchers:
        """This one, under the name of the default."""
        offer = Offer("process", "in memory", lambda: self)
        return Launchers({"process": offer}, limits=LimitMode.OFF)

    def nf(self, instance: str) -> FakeNf:
        """The newest NF host that runs an instance."""
        found = next(h.nf for h in reversed(self.handles) if instance in h.spec.instances)
        assert found is not None
        return found


class AnyCpu:
    """A placement policy with resources for everything."""

    def place(self, need: Need, resources: FreeResources) -> Decision:
        del need, resources
        return Decision((CPUS[0],), False, 0, "any will do")


class PlaneMaker:
    """Makes a data plane for a manager, and keeps it."""

    def __init__(self) -> None:
        self.plane = FakeDataPlane()

    def __call__(self, settings: DataplaneSettings, eal_arguments: Sequence[str]) -> FakeDataPlane:
        self.plane.start_environment(eal_arguments)
        self.plane.init(settings)
        return self.plane


def until(is_true: Callable[[], bool], turn: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Give turns until something has come true."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "it does not come true"
        turn()
