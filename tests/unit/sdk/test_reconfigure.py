"""NFs get new configurations while they serve, or decline them and go on as before."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onvm_sdk import NativeKernel, NetworkFunction, Verdict, kernel
from onvm_sdk._hosting import reconfigure
from onvm_sdk._hosting.stage import build_stage
from onvm_sdk._native.nf import Message, MessageType
from onvm_sdk.errors import ConfigError, OnvmError
from onvm_sdk.manifest import parse_manifest
from onvm_sdk.nf import Context
from onvm_sdk.testing import Runner, frames

FRAMES = [frames.udp("10.0.0.1", 1000, "10.0.0.2", port) for port in (53, 80)]
ONLY_53 = [Verdict.DROP, Verdict.NEXT]
ONLY_80 = [Verdict.NEXT, Verdict.DROP]


def checked(config: Any) -> int:
    port = int(config["port"])
    if port == 13:
        raise ConfigError("expected another number", field="port", value=port)
    return port


class Columns(NetworkFunction):
    """Drops one port, through columns."""

    def setup(self, ctx: Any) -> None:
        self.port = checked(ctx.config)

    def reconfigure(self, config: Any) -> None:
        self.port = checked(config)

    def process(self, burst: Any) -> None:
        burst.drop(burst.udp.dst_port == self.port)


class Packets(Columns):
    """The same, packet by packet."""

    process = NetworkFunction.process

    def process_packet(self, pkt: Any) -> Any:
        return pkt.drop() if pkt.udp.dst_port == self.port else None


class Compiled(NetworkFunction):
    """The same, compiled, with a table that is built beside the one in use."""

    def setup(self, ctx: Any) -> None:
        self.state = self.prepare(ctx.config)

    def prepare(self, config: Any) -> Any:
        blocked = np.zeros(65536, np.bool_)
        blocked[checked(config)] = True
        return blocked

    def reconfigure(self, blocked: Any) -> None:
        self.state = blocked

    @kernel
    def process_packet(pkt, blocked):  # type: ignore[no-untyped-def]
        if blocked[pkt.udp.dst_port]:
            return pkt.drop()
        return Verdict.NEXT


class Native(NetworkFunction):
    """A kernel in C; it counts how often it is asked for."""

    def __init__(self) -> None:
        self.state_address = 0

    def native(self) -> NativeKernel:
        return NativeKernel(1, self.state_address)

    def reconfigure(self, config: Any) -> None:
        self.state_address = checked(config)


@pytest.mark.parametrize("kind", [Columns, Packets, Compiled])
@pytest.mark.parametrize("compiled", [True, False])
def test_packets_meet_the_new_configuration_or_the_old_one_whole(
    kind: type[NetworkFunction], compiled: bool
) -> None:
    if compiled and kind is Compiled:
        pytest.importorskip("numba")
    with Runner(kind, config={"port": 53}, compiled=compiled) as runner:
        assert runner.run(FRAMES).verdicts == ONLY_53
        runner.reconfigure({"port": 80})
        assert runner.run(FRAMES).verdicts == ONLY_80
        assert runner.contexts[0].config == {"port": 80}
        with pytest.raises(ConfigError, match="port: 13: expected another number"):
            runner.reconfigure({"port": 13})
        assert runner.run(FRAMES).verdicts == ONLY_80
        assert runner.contexts[0].config == {"port": 80}


def test_c_kernel_is_asked_for_its_state_again() -> None:
    stage = build_stage(Native(), lambda error: None)
    assert reconfigure.use(stage, {"port": 0}, lambda error: None) is stage
    changed = reconfigure.use(stage, {"port": 4096}, lambda error: None)
    assert (changed.function, changed.state) == (1, 4096)


def test_runner_names_an_nf_that_cannot() -> None:
    class Fixed(NetworkFunction):
        def process_packet(self, pkt: Any) -> None: ...

    with Runner(Fixed) as runner, pytest.raises(OnvmError, match="fixed has no reconfigure"):
        runner.reconfigure({})


# ---- in an NF host ----

MANIFEST = parse_manifest(
    {
        "schema": 1,
        "name": "nf",
        "sdk": ">=0.1",
        "config": {
            "port": {"type": "int", "default": 1, "max": 9999},
            "rules": {"type": "path", "default": ""},
        },
    },
    "onvm-nf.toml",
)


class FakeHost:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, str, bytes]] = []
        self.interrupted = threading.Event()
        self.gives_way = False

    def send(self, kind: int, stage: int, peer: str = "", payload: bytes = b"") -> None:
        self.sent.append((kind, stage, peer, payload))

    def interrupt(self) -> None:
        self.interrupted.set()

    def give_way(self, gives_way: bool) -> None:
        self.gives_way = gives_way


class Reader(NetworkFunction):
    """Reads a file of the new configuration, in the thread in which it prepares."""

    def __init__(self) -> None:
        self.used: Any = None

    def prepare(self, config: Any) -> Any:
        if checked(config) == 14:
            raise LookupError("no")
        return config["port"], Path(config["rules"]).read_text(), threading.get_ident()

    def reconfigure(self, config: Any) -> None:
        if config[0] == 15:
            raise ConfigError("expected an even number", field="port", value=15)
        self.used = config


class Bed:
    """The part of an NF host that this is about."""

    def __init__(self, *nfs: NetworkFunction) -> None:
        self.host = FakeHost()
        self.nfs = nfs
        self.contexts = [Context("nf", config={"port": 0}) for _ in nfs]
        host: Any = self.host
        self.part = reconfigure.Reconfiguration(
            host, nfs, [MANIFEST] * len(nfs), self.contexts, self.replace
        )

    def replace(self, stage: int, prepared: Any) -> None:
        self.nfs[stage].reconfigure(prepared)

    def say(self, kind: int, stage: int = 0, payload: bytes = b"", change: str = "7") -> None:
        self.part.take(Message(kind, stage, change, payload))

    def give(self, port: int, rules: Path, content: bytes, stage: int = 0) -> None:
        toml = f"port = {port}\nrules = {json.dumps(str(rules))}\n".encode()
        head = json.dumps([len(toml), [[str(rules), len(content)]]]).encode() + b"\n"
        whole = head + toml + content
        self.host.interrupted.clear()
        for piece in (whole[:20], whole[20:], b""):
            self.say(MessageType.CONFIG, stage, piece)

    def prepared(self) -> list[tuple[int, int, str, bytes]]:
        assert self.host.interrupted.wait(5)
        self.part.turn()
        return self.host.sent


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules"
    path.write_text("old")
    return path


def test_nf_prepares_in_a_thread_and_changes_when_asked(rules: Path) -> None:
    nf = Reader()
    bed = Bed(nf)
    bed.give(20, rules, b"new")  # not what the file has, as in a sandbox
    assert bed.host.gives_way
    assert bed.prepared() == [(MessageType.PREPARED, 0, "7", b"")]
    assert nf.used is None
    assert not bed.host.gives_way
    bed.say(MessageType.APPLY)
    assert bed.host.sent[1:] == [(MessageType.APPLIED, 0, "7", b"")]
    assert nf.used[:2] == (20, "new")
    assert nf.used[2] != threading.get_ident()
    assert bed.contexts[0].config["port"] == 20
    assert rules.read_text() == "old"
    bed.say(MessageType.APPLY)  # there is nothing left of the change
    assert nf.used[0] == 20


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (13, {"expected": "expected another number", "field": "port", "value": 13}),
        (14, {"expected": "expected one that it can use: nf.prepare raised LookupError: no"}),
        (10000, {"expected": "expected at most 9999", "field": "port", "value": 10000}),
    ],
)
def test_mistake_declines_before_anything_changes(
    rules: Path, port: int, expected: dict[str, Any]
) -> None:
    bed = Bed(Reader())
    bed.give(port, rules, b"old")
    ((kind, stage, change, reason),) = bed.prepared()
    assert (kind, stage, change) == (MessageType.DECLINED, 0, "7")
    assert json.loads(reason) == expected
    bed.say(MessageType.APPLY)
    assert bed.nfs[0].used is None  # type: ignore[attr-defined]
    assert bed.contexts[0].config == {"port": 0}


def test_refusal_at_the_change_itself_is_reported(rules: Path) -> None:
    bed = Bed(Reader())
    bed.give(15, rules, b"old")
    assert bed.prepared()[0][0] == MessageType.PREPARED
    bed.say(MessageType.APPLY)
    assert bed.host.sent[1][:3] == (MessageType.DECLINED, 0, "7")
    assert bed.contexts[0].config == {"port": 0}


def test_cancelled_change_leaves_nothing(rules: Path) -> None:
    nf = Reader()
    bed = Bed(nf)
    bed.give(20, rules, b"old")
    bed.prepared()
    bed.say(MessageType.CANCEL)
    bed.say(MessageType.APPLY)
    assert nf.used is None


def test_nf_without_reconfigure_says_so_without_a_reason() -> None:
    class Fixed(NetworkFunction):
        """Has none."""

    bed = Bed(Fixed())
    bed.say(MessageType.CONFIG, 0, b"some")
    bed.say(MessageType.CONFIG, 0)
    assert bed.host.sent == [(MessageType.DECLINED, 0, "7", b"")]


def test_fused_nfs_change_together(rules: Path) -> None:
    first, second = Reader(), Reader()
    bed = Bed(first, second)
    for stage in (0, 1):
        bed.give(20 + stage, rules, b"old", stage)
        bed.prepared()
    bed.say(MessageType.APPLY)
    assert (first.used[0], second.used[0]) == (20, 21)


def test_content_that_cannot_be_read_is_declined() -> None:
    bed = Bed(Reader())
    for piece in (b"nonsense", b""):
        bed.say(MessageType.CONFIG, 0, piece)
    assert bed.prepared()[0][0] == MessageType.DECLINED
