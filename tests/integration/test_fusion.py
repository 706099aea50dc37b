"""NFs that are fused while cores are short, and separated when one core is not enough."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from up_host import install_nf

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client

if TYPE_CHECKING:
    from up_host import Host

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it needs two CPUs")

WAITS = """
import time
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def setup(self, ctx):
        self.ctx = ctx
        self.seen = 0

    def process_packet(self, pkt):
        self.seen += 1
        self.ctx.counters["seen"] = self.seen
        time.sleep(0.0003)

    def snapshot(self):
        return str(self.seen).encode()

    def restore(self, snapshot):
        self.seen += int(snapshot)
"""
# Workers on both CPUs: so there are two for NFs, too.
CONFIG = """
[dataplane]
workers = 2
cpus = [{cpus}]
buffers = 8192
ring_length = 128
[ports.calm]
uri = "null:?flows=40&rate=300"
[ports.busy]
uri = "null:?flows=40&rate={rate}"
[ports.wan]
uri = "null:"
[nfs.first]
[nfs.second]
[[fused]]
nfs = ["first", "second"]
fuse = "auto"
[chains.main]
in = "calm"
out = "wan"
services = ["first", "second"]
"""


def ask(host: Host, request: m.Request) -> Any:
    with Client(host.runtime / "main") as client:
        return msgspec.to_builtins(client.ask(request, object))


def launched(host: Host) -> dict[str, str]:
    """State of each NF host by its instances."""
    return {
        "+".join(nf["instances"]): nf["state"] for nf in ask(host, m.InstancesRequest())["launched"]
    }


def test_fused_nfs_are_separated_under_load_and_lose_nothing(host: Host) -> None:
    for name in ("first", "second"):
        install_nf(host.site, name, WAITS)
        manifest = host.site / f"onvm_nf_{name}" / "onvm-nf.toml"
        manifest.write_text(manifest.read_text().replace('"none"', '"per-flow"'))
    cpus = sorted(os.sched_getaffinity(0))[:2]
    # A packet takes 0.7 ms or more in both: this is more than they can do in one process, and less
    # than they can do in two.
    host.configure(CONFIG.format(cpus=", ".join(map(str, cpus)), rate=1600))
    plan = host.json("plan", "-f", "onvm.toml")
    assert [nf["instances"] for nf in plan["nfs"]] == [["first-1", "second-1"]]
    assert plan["nfs"][0]["reason"].startswith("fused: no whole cores are free for 2 NFs; ")
    host.do("up", "-d")
    assert launched(host) == {"first-1+second-1": "active"}
    host.wait(lambda: ask(host, m.StatusRequest())["report"]["tx"] > 300)
    assert launched(host) == {"first-1+second-1": "active"}, "one core is enough for a few packets"
    host.do("chain", "add", "main", "--in", "busy", "--out", "wan", "--services", "first,second")
    host.wait(lambda: launched(host) == {"first-2": "active", "second-2": "active"}, 60)
    seen = ask(host, m.StatusRequest())["report"]["tx"]
    host.wait(lambda: ask(host, m.StatusRequest())["report"]["tx"] > seen + 1000)
    report = host.json("down")["report"]
    assert report["rx"] == report["tx"] + sum(report["drops"].values())
    assert set(report["drops"]) <= {"shed", "no_chain"}, "only what one core could not do"
    (second,) = (nf for nf in report["nfs"] if nf["instance"] == "second-2")
    assert second["counters"]["seen"] >= second["rx"] + 300, "it has what the fused one had seen"


def test_auto_fused_nfs_begin_with_one_instance(host: Host) -> None:
    host.configure(
        '[nfs.hop]\n[nfs.skip]\n[[fused]]\nnfs = ["hop", "skip"]\nfuse = "auto"\ninstances = 2\n'
    )
    done = host.onvm("up")
    assert done.returncode == 2
    assert "fused[0].instances: 2: expected 1: NFs that are fused or not" in done.stderr
