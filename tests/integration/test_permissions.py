"""NFs do to packets what their manifests allow, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from up_host import Host, install_nf

WAYS = {
    "view": """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        pkt.ipv4.ttl = 3
""",
    "columns": """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process(self, burst):
        burst.ipv4.ttl = 3
""",
    "kernel": """
from onvm_sdk import NetworkFunction, Verdict, kernel

class Nf(NetworkFunction):
    @kernel
    def process_packet(pkt, state):
        pkt.ipv4.ttl = 3
        return Verdict.NEXT
""",
}
DROPPER = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        return pkt.drop()
"""
READER = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        assert pkt.ipv4.ttl
"""
MANIFEST = """
schema = 1
name = "NAME"
sdk = ">=0.1,<1"
permissions = [PERMISSIONS]
"""


def install(host: Host, name: str, source: str, permissions: str) -> None:
    install_nf(host.site, name, source)
    text = MANIFEST.replace("NAME", name).replace("PERMISSIONS", permissions)
    (host.site / f"onvm_nf_{name}/onvm-nf.toml").write_text(text)


def run(host: Host, *nfs: str) -> subprocess.CompletedProcess[str]:
    report = str(host.folder / "report.json")
    arguments = ("--in", "pcap:in.pcap", "--out", "null:", "--json", report)
    return host.onvm("run", *arguments, "--chain", ",".join(nfs))


@pytest.mark.parametrize("way", ["view", "columns", "kernel"])
def test_a_reading_nf_cannot_change_a_packet(host: Host, way: str) -> None:
    install(host, "writer", WAYS[way], '"read", "drop"')
    done = run(host, "writer")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert 'an NF without the permission "rewrite" wrote into a packet' in last, last
    if way == "view":
        file = host.site / "onvm_nf_writer/__init__.py"
        assert re.search(rf"in process_packet \({file}:6\)", last), last
    install(host, "allowed", WAYS[way], '"read", "rewrite"')
    assert run(host, "allowed").returncode == 0


def test_a_reading_nf_reads(host: Host) -> None:
    install(host, "reader", READER, '"read"')
    done = run(host, "reader")
    assert done.returncode == 0, done.stderr
    assert json.loads((host.folder / "report.json").read_text())["tx"] == 32


def test_an_nf_without_the_permission_cannot_drop(host: Host) -> None:
    install(host, "dropper", DROPPER, '"read", "rewrite"')
    done = run(host, "dropper")
    assert done.returncode == 1
    assert (
        'onvm: dropper.process_packet dropped a packet: expected "drop" among the permissions'
        in done.stderr
    )
    install(host, "allowed", DROPPER, '"read", "drop"')
    assert run(host, "allowed").returncode == 0


def test_a_manager_keeps_packets_that_a_forged_host_drops(host: Host, tmp_path: Path) -> None:
    """The NF host's own check is switched off: the manager's remains."""
    source = (
        DROPPER
        + """
    def setup(self, ctx):
        from onvm_sdk._native.nf import Host
        permit = Host.permit
        Host.permit = lambda self, stage, permissions: permit(self, stage, ["drop"])
"""
    )
    install(host, "forged", source, '"read"')
    host.configure(
        """
[dataplane]
flows = 4096
buffers = 2048
[ports.lan]
uri = "null:?rate=2000"
[ports.wan]
uri = "null:"
[nfs.forged]
[chains.main]
in = "lan"
out = "wan"
services = ["forged"]
"""
    )
    started = host.onvm("up", "-d")
    # The first packet may end the NF before `up -d` has returned, which then says so.
    assert started.returncode == 0 or (
        'without the permission "drop"' in started.stderr and "the manager runs" in started.stderr
    ), started.stderr
    host.wait(lambda: "without the permission" in host.status()["launched"][0]["reason"])
    report = host.status()["report"]
    assert report["drops"].get("forged.rule", 0) == 0
    assert not any(name.startswith("forged.") for name in report["drops"])
    assert 'dropped packets without the permission "drop"' in host.do("status")
