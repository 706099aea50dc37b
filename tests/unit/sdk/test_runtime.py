"""The NF host's process, against a host that plays the manager."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onvm_sdk import NativeKernel, NetworkFunction, runtime
from onvm_sdk._hosting.plugin import EntryPoint, Plugin
from onvm_sdk._native.nf import Event, Message, MessageType
from onvm_sdk.errors import AttachError
from onvm_sdk.manifest import FLOW_CLASSES, Manifest

LOG: list[Any] = []


class Recorder(NetworkFunction):
    """Writes down what it is called with."""

    timer_interval_s = 1e-9

    def setup(self, ctx: Any) -> None:
        self.asked = 0
        ctx.counters["hits"] = 41
        self.ctx = ctx
        ctx.claim("10.0.0.1", 1024, 2048, 0)
        ctx.own_addresses(["10.0.0.1", "2001:db8::1"])
        ctx.send_message("other", b"early")
        LOG.append("setup")

    def process_packet(self, pkt: Any) -> None:
        return None

    def on_message(self, sender: str, payload: bytes) -> None:
        if payload == b"boom":
            raise LookupError("no")
        LOG.append((sender, payload))

    def on_ports(self, ports: Any) -> None:
        LOG.extend((port.name, port.number, port.mtu, port.mac, port.link) for port in ports)

    def on_addresses(self, addresses: Any) -> None:
        LOG.append(tuple(addresses))

    def on_timer(self, now_ns: int) -> None:
        if "timer" not in LOG:
            LOG.append("timer")

    def drain(self) -> bool:
        self.asked += 1
        return True

    def teardown(self) -> None:
        LOG.append("teardown")


class FakeHost:
    """Plays a list of events, each one a message, DETACHED or a deadline."""

    script: list[Any]

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refusals = 2
        self.attachments = 0

    def set_stage(self, stage: int, function: int, state: int) -> None:
        LOG.append("stage")

    def allow(self, stage: int, *, may_originate: bool, held_packets: int) -> None:
        pass

    def hold(self, is_allowed: bool) -> None:
        LOG.append("hold" if is_allowed else "release")

    offender = None

    def permit(self, stage: int, permissions: list[str]) -> None:
        assert "read" in permissions

    def attach(self, path: str, stages: Any, **options: Any) -> None:
        if self.attachments and self.refusals:
            self.refusals -= 1
            raise AttachError("not yet")
        self.attachments += 1
        LOG.append("attach")

    def counters(self, stage: int) -> memoryview:
        self.values = memoryview(bytearray(128)).cast("Q")
        return self.values

    def turn(self, stage: int) -> None:
        LOG.append(("turn", stage))

    def ready(self) -> None:
        LOG.append(("ready", self.values[0]))

    def run(self, deadline_ns: int) -> int:
        step = self.script.pop(0)
        if isinstance(step, Message):
            self.messages.append(step)
            return int(Event.MESSAGE)
        return int(step)

    def receive(self) -> Message | None:
        return self.messages.pop() if self.messages else None

    def send(self, kind: int, stage: int, peer: str = "", payload: bytes = b"") -> None:
        LOG.append(("send", kind, peer, payload))

    def send_claim(self, *claim: Any) -> None:
        LOG.append(("claim", *claim))

    def stop_on_signals(self) -> None: ...

    def interrupt(self) -> None: ...

    def give_way(self, gives_way: bool) -> None: ...

    def close(self) -> None:
        LOG.append("close")

    is_stop_requested = False


def host(monkeypatch: pytest.MonkeyPatch, *script: Any, **options: Any) -> runtime.NfHost:
    LOG.clear()
    FakeHost.script = list(script)
    monkeypatch.setattr(runtime, "Host", FakeHost)
    manifest = Manifest(schema=1, name="rec", service="rec", sdk=">=0.1", counters=["hits"])
    plugin = Plugin(EntryPoint("rec", f"{__name__}:Recorder"), manifest)
    monkeypatch.setattr(Plugin, "load", lambda self: Recorder)
    return runtime.NfHost("/nowhere", [plugin], configs={}, **options)


STOP = Message(MessageType.STOP, 0, "", b"")


def test_life_of_an_nf(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = Message(MessageType.USER, 0, "fw", b"hi")
    drain = Message(MessageType.DRAIN, 0, "", b"")
    host(monkeypatch, hello, drain, Event.DEADLINE, STOP).run()
    assert LOG[:3] == ["setup", "stage", "attach"]
    # Before packets come: the manager is to know where they belong.
    assert LOG[3] == ("send", MessageType.STEERING, "", b"flow" + b" 0" * len(FLOW_CLASSES))
    assert LOG[4] == ("claim", 0, "10.0.0.1", 1024, 2048, 0)
    assert LOG[5] == ("ready", 41)
    assert LOG[6][:2] == ("send", MessageType.OWN_ADDRESSES)
    assert LOG[7] == ("send", MessageType.USER, "other", b"early")
    assert ("fw", b"hi") in LOG
    assert ("send", MessageType.DRAINED, "", b"") in LOG
    assert "timer" in LOG
    assert LOG[-2:] == ["teardown", "close"]


def test_lifetimes_are_told_again_with_a_new_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    made = host(monkeypatch, Message(MessageType.APPLY, 0, "7", b""), STOP)
    made._manifests[0] = made._manifests[0].replace(flow_lifetimes={"udp": "udp_s"})
    made._contexts[0].config = {"udp_s": 20}
    made.run()
    told = [one[3] for one in LOG if one[:2] == ("send", MessageType.STEERING)]
    assert told == [b"flow 0 0 0 0 20000 0 0"] * 2


def test_an_nf_learns_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b"".join(
        name.ljust(32, b"\0") + struct.pack("=II6s2x", number, mtu, mac)
        for name, number, mtu, mac in ((b"lan", 3, 1500, b"\2\0\0\0\0\1"), (b"wan", 4, 0, b""))
    )
    link = Message(MessageType.LINK, 0, "lan", b'{"addresses":["10.0.0.1/24"]}')
    told = Message(MessageType.PORTS, 0, "", payload)
    host(monkeypatch, link, told, told, STOP).run()
    assert ("lan", 3, 1500, "02:00:00:00:00:01", {"addresses": ["10.0.0.1/24"]}) in LOG
    assert ("wan", 4, 0, "", {}) in LOG
    assert ("lan", 3, 1500, "02:00:00:00:00:01", {}) in LOG, "links are told again each time"


def test_an_nf_learns_addresses_and_tells_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Message(MessageType.ADDRESSES, 0, "", b"198.51.100.7\n2001:db8::7")
    host(monkeypatch, told, STOP).run()
    assert ("198.51.100.7", "2001:db8::7") in LOG
    assert ("send", MessageType.OWN_ADDRESSES, "", b"10.0.0.1\n2001:db8::1") in LOG


def test_a_timer_turns_a_kernel_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    nf = host(monkeypatch, Event.DEADLINE, STOP)
    nf.run()
    assert ("turn", 0) not in LOG, "packet by packet"
    monkeypatch.setattr(Recorder, "process_packet", NetworkFunction.process_packet)
    monkeypatch.setattr(Recorder, "native", lambda self: NativeKernel(1))
    host(monkeypatch, Event.DEADLINE, STOP).run()
    assert ("turn", 0) in LOG


def test_a_drained_nf_has_written_its_snapshot_before_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "state"
    monkeypatch.setattr(Recorder, "snapshot", lambda self: LOG.append("snapshot") or b"all")
    drain = Message(MessageType.DRAIN, 0, "", b"")
    host(monkeypatch, drain, Event.DEADLINE, STOP, snapshot=str(file)).run()
    assert LOG.index("snapshot") < LOG.index(("send", MessageType.DRAINED, "", b""))
    assert file.read_bytes().endswith(b"\nall")


def test_state_is_restored_between_setup_and_the_first_attach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "state"
    file.write_bytes(b'onvm snapshot 1\n[["rec", 3]]\nall')
    monkeypatch.setattr(Recorder, "restore", lambda self, state: LOG.append(state))
    host(monkeypatch, STOP, restore=str(file)).run()
    assert LOG.index("setup") < LOG.index(b"all") < LOG.index("attach")


def test_an_nf_that_raises_writes_no_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boom = Message(MessageType.USER, 0, "fw", b"boom")
    with pytest.raises(runtime.NfError):
        host(monkeypatch, boom, snapshot=str(tmp_path / "state")).run()
    assert not list(tmp_path.iterdir())


def test_a_manager_that_comes_back_is_attached_to_with_all_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host(monkeypatch, Event.DETACHED, STOP).run()
    assert LOG.count("setup") == 1
    assert LOG.count("attach") == 2
    assert LOG.count(("ready", 41)) == 2
    assert LOG.count(("claim", 0, "10.0.0.1", 1024, 2048, 0)) == 2


def test_an_nf_that_raises_ends_the_process_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    boom = Message(MessageType.USER, 0, "fw", b"boom")
    with pytest.raises(runtime.NfError, match=r"rec\.on_message raised LookupError: no"):
        host(monkeypatch, boom).run()


def test_being_thrown_out_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttachError, match="bad descriptor"):
        host(monkeypatch, Message(MessageType.DETACH, 0, "", b"bad descriptor")).run()


@pytest.mark.parametrize(
    "module", ["onvm_sdk", "onvm_sdk.runtime", "onvm_sdk.manifest", "onvm_sdk.packet"]
)
def test_imports_are_light(module: str) -> None:
    heavy = "{'numpy', 'numba', 'onvm_core', 'typer'}"
    code = f"import sys, {module}; print(*({heavy} & set(sys.modules)))"
    command = [sys.executable, "-P", "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout.strip() == b""


CONFIGURED = """
from onvm_sdk import NetworkFunction

class Shaper(NetworkFunction):
    manifest = {"config": {"rate": {"type": "int", "default": 1}}}

    def setup(self, ctx):
        raise RuntimeError(f"rate {ctx.config['rate']}")

    def process_packet(self, pkt):
        pass
"""


def test_a_class_that_is_not_installed_gets_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "shaping.py").write_text(CONFIGURED)
    (tmp_path / "shaper.toml").write_text("rate = 7\n")
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "onvm_sdk.runtime",
            "--socket",
            str(tmp_path / "s"),
            "--nf",
            "shaping:Shaper",
            "--config",
            f"shaping:Shaper={tmp_path}/shaper.toml",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert re.search(
        r"^onvm: shaper\.setup raised RuntimeError: rate 7 \(.*\.py:\d+\)\n\Z",
        done.stderr,
        re.MULTILINE,
    )


def test_an_unknown_nf_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "onvm_sdk.runtime", "--socket", str(tmp_path / "s")]
    done = subprocess.run([*command, "--nf", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "onvm: nf: 'nope': expected an installed NF\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nf", "x"], "--socket: expected a value"),
        (["--socket"], "--socket: expected a value"),
        (["--socket", "s", "--nf", "x", "--core=a"], "--core: 'a': expected a number"),
        (["--sock", "s"], "'--sock': expected one of --socket, --nf,"),
        (["--socket=s", "--nf=x", "--config=y=f"], "--config: 'y=f': expected NAME=FILE"),
    ],
)
def test_mistakes_on_the_command_line(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime.main(options) == 2
    assert capsys.readouterr().err.startswith(f"onvm: {said}")


ENDING = """
import atexit, ctypes, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from onvm_sdk import runtime

class Table:
    def __del__(self):
        print("collected", flush=True)

table = Table()
atexit.register(print, "exit function")
pool = ThreadPoolExecutor()
pool.submit(lambda: (time.sleep(0.05), print("task\\n", end="")))
threading.Thread(target=lambda: (time.sleep(0.05), print("thread\\n", end=""))).start()
ctypes.CDLL(None).puts(b"C stream")
sys.stderr.write("stderr")
runtime._end(3)
"""


def test_the_end_loses_no_output_and_frees_nothing() -> None:
    command = [sys.executable, "-P", "-c", ENDING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert sorted(done.stdout.splitlines()) == ["C stream", "exit function", "task", "thread"]
    assert done.stderr == "stderr"


def test_output_that_cannot_be_written_is_no_success() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [
        sys.executable,
        "-P",
        "-c",
        "from onvm_sdk import runtime\nprint(1)\nruntime._end(0)",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # the stream, not print, meets the error
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(command, stdout=broken, check=False, timeout=60, env=environment)
    assert done.returncode == 120
