"""What NFs print, log and do wrong is shown to the person who runs them."""

from __future__ import annotations

import re
import subprocess

from up_host import Host, install_nf

TALKER = """
import logging
from onvm_sdk import NetworkFunction

log = logging.getLogger("talker")

class Nf(NetworkFunction):
    def setup(self, ctx):
        print("set up")
        self.ctx = ctx

    def process_packet(self, pkt):
        self.ctx.counters["seen"] += 1
        if self.ctx.counters["seen"] == 1:
            log.info("first of %d bytes", pkt.length)
"""
BROKEN = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        raise ValueError("a mistake")
"""
LOOP = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        self.spin()

    def spin(self):
        while True:
            pass
"""
FORK = """
import multiprocessing, os
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def setup(self, ctx):
        self.ctx = ctx
        os.fork()

    def process_packet(self, pkt):
        self.ctx.counters["seen"] += 1
        if self.ctx.counters["seen"] == 5:
            os.waitpid(os.fork(), 0)
        if self.ctx.counters["seen"] == 7:
            worker = multiprocessing.get_context("fork").Process(target=print, args=("in a child",))
            worker.start()
            worker.join()
"""
CONFIG = """
[dataplane]
flows = 4096
buffers = 2048
[ports.lan]
uri = "null:?flows=64&rate=2000"
[ports.wan]
uri = "null:"
[nfs.{nf}]
[chains.main]
in = "lan"
out = "wan"
services = ["{nf}"]
"""


def run(host: Host, nf: str, *options: str) -> subprocess.CompletedProcess[str]:
    return host.onvm("run", "--in", "null:?count=200", "--out", "null:", "--chain", nf, *options)


def test_prints_and_logs_are_shown_with_the_name_of_the_instance(host: Host) -> None:
    install_nf(host.site, "talker", TALKER)
    done = run(host, "talker")
    assert done.returncode == 0, done.stderr
    assert "talker-1 | set up\n" in done.stderr
    assert "talker-1 | INFO talker: first of 64 bytes\n" in done.stderr
    assert re.search(r"talker-1 +seen +200\n", done.stdout)
    assert "talker-1 |" not in run(host, "talker", "--quiet").stderr


def test_a_forked_process_that_returns_ends_and_the_nf_goes_on(host: Host) -> None:
    install_nf(host.site, "fork", FORK)
    done = run(host, "fork")
    assert done.returncode == 0, done.stderr
    assert re.search(r"fork-1 +seen +200\n", done.stdout)
    assert done.stderr.count("an NF has forked returned from the NF's function: expected") == 2
    assert done.stderr.count("in a child") == 1


def test_a_run_with_an_nf_that_hangs_ends_with_the_authors_line(host: Host) -> None:
    install_nf(host.site, "loop", LOOP)
    done = run(host, "loop")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: NF loop hangs: no progress for ")
    file = host.site / "onvm_nf_loop/__init__.py"
    assert re.search(rf"in spin \({file}:(9|10)\)", last), last


def test_states_of_failures_are_told_apart(host: Host) -> None:
    install_nf(host.site, "broken", BROKEN)
    install_nf(host.site, "talker", TALKER)
    host.configure(CONFIG.format(nf="talker"))
    host.do("up", "-d")
    host.do("nf", "run", "talker", "--instance", "2")
    host.do("nf", "stop", "talker-2")
    states = {nf["instance"]: nf["state"] for nf in host.status()["report"]["nfs"]}
    assert states == {"talker-1": "active", "talker-2": "stopped"}
    assert "talker-2" not in host.do("status")


def test_crash_loop_shows_the_authors_line_in_one_row(host: Host) -> None:
    install_nf(host.site, "broken", BROKEN)
    host.configure(CONFIG.format(nf="broken"))
    host.onvm("up", "-d")
    host.wait(lambda: launched(host)["state"] == "crash-loop", 30)
    rows = [nf for nf in host.status()["report"]["nfs"] if nf["instance"] == "broken-1"]
    assert {nf["state"] for nf in rows} <= {"crashed", "active"}
    assert len(rows) <= 2
    file = host.site / "onvm_nf_broken/__init__.py"
    tail = launched(host)["log_tail"]
    assert tail[-1] == (f"onvm: broken.process_packet raised ValueError: a mistake ({file}:6)")
    shown = host.do("status")
    table = shown[shown.index("\nNFs") :]
    assert len(re.findall(r"^broken-1 +crash-loop ", table, re.M)) == 1
    assert "dead" not in shown


def launched(host: Host) -> dict[str, object]:
    (nf,) = host.status()["launched"]
    assert isinstance(nf, dict)
    return nf
