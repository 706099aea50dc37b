"""NF hosts that hang are ended and started again; those that are only starved are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from up_host import Host, install_nf

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client
from onvm_core.manager.supervision.thread_times import ThreadTimes, read_thread_times

SOURCE = '''
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    """Compute for about a millisecond with each packet; without an end when told to."""

    def setup(self, ctx):
        self.turns = 20_000

    def process_packet(self, pkt):
        for _ in range(self.turns):
            pass

    def on_message(self, sender, payload):
        while True:
            pass
'''
CONFIG = """
[dataplane]
flows = 4096
buffers = 2048
[ports.lan]
uri = "null:?flows=64&rate=200"
[ports.wan]
uri = "null:"
[nfs.grind]
[chains.main]
in = "lan"
out = "wan"
services = ["grind"]
"""
N_OTHERS = 8
STARVED_S = 1.5
"""Several times as long as a host may hang."""


@pytest.fixture
def grinding(host: Host) -> Host:
    """A manager whose NF works on packets."""
    install_nf(host.site, "grind", SOURCE)
    host.configure(CONFIG)
    host.do("up", "-d")
    host.wait(lambda: sent(host) > 20)
    return host


@pytest.fixture
def others(grinding: Host) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that want every CPU, and leave next to nothing of it to the NF."""
    pid = nf(grinding)["pid"]
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    group = Path(f"/proc/{pid}/autogroup")  # sessions share the CPUs first, then processes
    if group.exists():
        group.write_text("19")
    spin = [sys.executable, "-P", "-S", "-c", "while True: pass"]
    cpus = sorted(os.sched_getaffinity(0))
    started = []
    for number in range(N_OTHERS * len(cpus)):
        process = subprocess.Popen(spin, start_new_session=True)
        started.append(process)
        os.sched_setaffinity(process.pid, {cpus[number % len(cpus)]})
    yield started
    end(started)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def status(host: Host) -> m.StatusReply:
    with Client(host.runtime / "main") as client:
        return client.ask(m.StatusRequest(), m.StatusReply)


def sent(host: Host) -> int:
    return status(host).report.tx


def nf(host: Host) -> dict[str, Any]:
    launched: dict[str, Any] = host.status()["launched"][0]
    return launched


def thread(pid: int) -> ThreadTimes:
    return read_thread_times(pid)[pid]


def test_starved_nf_is_left_alone(grinding: Host, others: list[subprocess.Popen[bytes]]) -> None:
    pid = nf(grinding)["pid"]
    before = thread(pid)

    def is_starved() -> bool:
        now = thread(pid)
        return now.waited_s > before.waited_s + STARVED_S

    grinding.wait(is_starved, 60)
    ran_s = thread(pid).ran_s - before.ran_s
    end(others)
    assert ran_s < STARVED_S / 4
    seen = sent(grinding)
    grinding.wait(lambda: sent(grinding) > seen + 20)
    assert (nf(grinding)["pid"], nf(grinding)["restarts"]) == (pid, 0)
    grinding.do("down")


def test_nf_that_computes_without_an_end_is_started_again(grinding: Host) -> None:
    with Client(grinding.runtime / "main") as client:
        client.ask(m.AskRequest(name="grind", message="hang"), m.AskedReply)
    grinding.wait(lambda: nf(grinding)["restarts"] == 1)
    reason = nf(grinding)["reason"]
    assert reason.startswith("no progress for ")
    assert "it computes" in reason
    seen = sent(grinding)
    grinding.wait(lambda: sent(grinding) > seen + 20)
    grinding.do("down")
