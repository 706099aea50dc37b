"""An NF of one file, which holds packets: run, asked, replaced and stopped without a loss."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import ONVM, run_onvm
from up_host import write_capture

if TYPE_CHECKING:
    from up_host import Host

HOLDER = '''
from onvm_sdk import NetworkFunction

VERSION = "one"


class Shaper(NetworkFunction):
    """Hold every packet; release some at each turn of the timer."""

    timer_interval_s = 0.005

    def setup(self, ctx):
        self.ctx = ctx
        self.tokens = []

    def process_packet(self, pkt):
        token = pkt.hold()
        if token:
            self.tokens.append(token)

    def on_timer(self, now_ns):
        for token in self.tokens[:20]:
            self.ctx.held.release(token)
        del self.tokens[:20]

    def on_message(self, sender, payload):
        if payload == b"fail":
            raise RuntimeError("asked to fail")
        if payload == b"mute":
            return None
        ports = [self.ctx.port(name) for name in ("lan", "wan")]
        text = f"{VERSION} {len(self.ctx.held) <= self.ctx.held.capacity} {ports}"
        return f"{text} {self.ctx.service('shaper')}".encode()


class Keeper(Shaper):
    timer_interval_s = 0.0


class Leaver(NetworkFunction):
    def process_packet(self, pkt):
        pass

    def teardown(self):
        print("leaving")
        raise RuntimeError("no way out")


class Sleeper(NetworkFunction):
    def process_packet(self, pkt):
        __import__("time").sleep(100)
'''
UP = """
[dataplane]
flows = 4096
buffers = 2048
[ports.lan]
uri = "pcap:in.pcap?loop=0&rate=4000"
[ports.wan]
uri = "null:"
[nfs.shaper]
plugin = "{file}:Shaper"
[chains.main]
in = "lan"
out = "wan"
services = ["shaper"]
"""


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    file = tmp_path / "holder.py"
    file.write_text(HOLDER)
    return file


def onvm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_onvm(*arguments, cwd=folder)


@pytest.mark.parametrize("kind", ["Shaper", "Keeper"])
def test_all_held_packets_leave_in_their_order(holder: Path, kind: str) -> None:
    """Those that the NF never releases leave when the run ends."""
    folder = holder.parent
    write_capture(folder / "in.pcap")
    chain = ("--in", "pcap:in.pcap", "--out", "pcap:out.pcap", "--chain", f"./holder.py:{kind}")
    done = onvm(folder, "run", *chain)
    assert done.returncode == 0, done.stderr
    assert "32 received + 0 originated = 32 sent + 0 dropped" in done.stdout
    before, after = ((folder / f"{name}.pcap").read_bytes()[24:] for name in ("in", "out"))
    size = len(before) // 32
    assert [before[at + 16 : at + size] for at in range(0, len(before), size)] == [
        after[at + 16 : at + size] for at in range(0, len(after), size)
    ]


WRITER = """
from pathlib import Path
from onvm_sdk import NetworkFunction

class Writer(NetworkFunction):
    def setup(self, ctx):
        self.ctx = ctx

    def process_packet(self, pkt):
        pass

    def teardown(self):
        if self.ctx.output_folder:
            (Path(self.ctx.output_folder) / "done.txt").write_text("done")
"""


@pytest.mark.parametrize("launcher", ["process", "sandbox"])
def test_an_nf_has_a_folder_for_its_files(tmp_path: Path, launcher: str) -> None:
    if launcher == "sandbox" and shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap here")
    (tmp_path / "writer.py").write_text(WRITER)
    chain = ("--chain", "./writer.py:Writer", "--launcher", launcher)
    ports = ("--in", "null:?count=10", "--out", "null:")
    done = onvm(tmp_path, "run", *ports, *chain, "--nf-output", "files")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "files").glob("*/*")
    assert (file.name, file.read_text()) == ("done.txt", "done")
    assert file.parent.name.startswith("writer-")
    assert onvm(tmp_path, "run", *ports, *chain).returncode == 0


def test_mistakes_are_one_line(holder: Path) -> None:
    (holder.parent / "bad.py").write_text("class Nf(:\n")
    for nf, text in (
        ("./nope.py:Nf", "nf: './nope.py:Nf': expected a file that exists"),
        (
            "./holder.py:Keper",
            "'Keper': expected a class of the file: one of Shaper, Keeper, Leaver, Sleeper; did",
        ),
        ("./holder.py", "'./holder.py': expected FILE.py:Class, with a class of that file"),
        ("./bad.py:Nf", "bad.py:1: expected Python: invalid syntax"),
    ):
        done = onvm(holder.parent, "run", "--in", "null:", "--out", "null:", "--chain", nf)
        assert done.returncode == 2
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("nf", "end", "line"),
    [
        ("Leaver", "&count=10", "ended with status 1: onvm: leaver.teardown raised RuntimeError"),
        ("Sleeper", "", "hangs: no progress for "),
    ],
)
def test_a_run_tells_failures_at_its_end(holder: Path, nf: str, end: str, line: str) -> None:
    source = f"null:?rate=1000{end}"
    more = () if end else ("--duration", "0.5")
    arguments = ("--in", source, "--out", "null:", "--chain", f"./holder.py:{nf}", *more)
    done = onvm(holder.parent, "run", *arguments)
    assert done.returncode == 1
    assert line in done.stderr.splitlines()[-1]
    assert ("leaver-1 | leaving" in done.stdout + done.stderr) == (nf == "Leaver")
    log = done.stderr.splitlines()[-1].rpartition("(log: ")[2].removesuffix(")")
    assert Path(log).is_file()


def test_a_manager_runs_it_and_users_ask_it(host: Host, holder: Path) -> None:
    host.configure(UP.format(file=holder))
    assert host.do("up", "--check").endswith(": fine\n")
    host.do("up", "-d")
    assert host.do("send", "shaper-1", "hello") == "one True [0, 1] 1\n"
    assert host.do("send", "shaper", "mute") == "sent to 1 instance\n"
    host.wait(lambda: any(nf["held"] for nf in host.status()["report"]["nfs"]))
    assert "shaper-2 serves" in host.do("nf", "run", f"{holder}:Shaper")
    assert host.json("send", "shaper", "hello")["replies"].keys() == {"shaper-1", "shaper-2"}
    assert "stopped shaper-1" in host.do("nf", "stop", "shaper-1")
    assert "leaver-1 serves" in host.do("nf", "run", f"{holder}:Leaver")
    host.do("nf", "stop", "leaver-1")
    host.wait(lambda: "leaver.teardown raised RuntimeError" in host.do("events", "-o", "json"))
    report = host.json("down")["report"]
    assert report["rx"] == report["tx"] > 0, report["drops"]


def test_watch_replaces_it_when_the_file_changes(host: Host, holder: Path) -> None:
    host.configure(UP.format(file=holder))
    host.do("up", "-d")
    command = [*ONVM, "nf", "run", f"{holder}:Shaper", "--watch"]
    with subprocess.Popen(
        command, env={**os.environ, **host.environment}, stdout=-1, stderr=-2, text=True
    ) as process:
        assert process.stdout is not None
        guard = threading.Timer(60, process.kill)  # nothing else ends a line that does not come
        guard.start()
        try:
            assert "shaper-2 serves" in process.stdout.readline()
            _write(holder, HOLDER.replace('"one"', '"two"'))
            assert "shaper-3 serves" in process.stdout.readline()
            assert host.do("send", "shaper-3", "hello").startswith("two ")
            _write(holder, "class Shaper(:\n")
            assert "shaper-3 goes on: " in process.stdout.readline()
            assert host.do("send", "shaper-3", "hello").startswith("two ")
        finally:
            guard.cancel()
            process.terminate()
        assert process.wait(30) == 0
    report = host.json("down")["report"]
    assert report["rx"] == report["tx"] > 0, report["drops"]


def _write(file: Path, text: str) -> None:
    """Put a whole file there, with another time than before."""
    before = file.stat().st_mtime_ns
    part = file.with_suffix(".part")
    part.write_text(text)
    while part.stat().st_mtime_ns == before:
        time.sleep(0.01)
        part.write_text(text)
    part.replace(file)
