"""NF hosts that must not sleep, alone on a CPU and together.

Usage: idling.py DIRECTORY; one line of JSON.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bed import Bed, say

import onvm_core
from onvm_core.dataplane.values import IdlePolicy
from onvm_core.manager.nf_hosts.registry import HostState

BENCH_NF = Path(onvm_core.__file__).parent / "bin" / "onvm-bench-nf"
LOOPS = 100_000


def start(bed: Bed, service: str) -> subprocess.Popen[bytes]:
    path, cpu = bed.manager.attach_path, bed.nf_cpus[0]
    process = bed.start(BENCH_NF, path, service, "1", "64", str(cpu))
    bed.until(
        lambda: any(host.state is HostState.ACTIVE for host in bed.hosts_of(process)),
        5,
        f"{service} serves",
    )
    return process


def sleeps(bed: Bed, process: subprocess.Popen[bytes]) -> int:
    return bed.plane.read_host(bed.hosts_of(process)[0].slot).sleeps


def sleeps_in_many_loops(bed: Bed, process: subprocess.Popen[bytes]) -> int:
    """How often a host sleeps while it looks for packets so many times."""
    slot = bed.hosts_of(process)[0].slot
    before = bed.plane.read_host(slot)
    bed.until(lambda: bed.plane.read_host(slot).loops > before.loops + LOOPS, 20, "it looks")
    return bed.plane.read_host(slot).sleeps - before.sleeps


with Bed(Path(sys.argv[1]), idle_policy=IdlePolicy.BUSY) as bed:
    first = start(bed, "a")
    alone = sleeps_in_many_loops(bed, first)
    second = start(bed, "b")
    bed.until(lambda: min(sleeps(bed, first), sleeps(bed, second)) > 10, 20, "both sleep")
    ports = bed.null_pair(rate_pps=10_000)
    bed.chain(1, ports, ["a", "b"], track_flows=False)
    bed.until(lambda: bed.plane.read_port(ports[1]).tx > 1000, 20, "packets pass both")
    bed.drain()
    bed.kill(second)
    bed.until(lambda: not bed.hosts_of(first)[0].shares_cpu, 5, "the other has the CPU")
    say(alone=alone, again=sleeps_in_many_loops(bed, first), balance=bed.balance())
