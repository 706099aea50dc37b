"""Packet memory on two NUMA nodes, one for each worker; the second is none that a host has.

An NF of a chain that only the first worker serves is stopped until it holds all buffers of the
first node. Another chain has a queue at each worker.

Usage: numa_nodes.py DIRECTORY; one line of JSON.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from bed import Bed, say

import onvm_core
from onvm_core.dataplane.values import NullPort
from onvm_core.manager.nf_hosts.registry import HostState

NOWHERE = 900
BUFFERS = 1024
BENCH_NF = Path(onvm_core.__file__).parent / "bin" / "onvm-bench-nf"


def start(bed: Bed, service: str):
    """An NF that serves."""
    process = bed.start(BENCH_NF, bed.manager.attach_path, service, 1, 64, bed.nf_cpus[0])
    bed.until(lambda: any(h.state is HostState.ACTIVE for h in bed.hosts_of(process)), 10, service)
    return process


def free(bed: Bed) -> list[int]:
    """Free buffers of each node."""
    return [area.free for area in bed.plane.read_plane().areas]


def main() -> None:
    """Run it."""
    (directory,) = sys.argv[1:]
    settings = {
        "n_workers": 2,
        "worker_nodes": (0, NOWHERE),
        "memory_nodes": (0, NOWHERE),
        "n_buffers": BUFFERS,
        "ring_length": 2048,
        "high_percent": 100,
        "low_percent": 99,
    }
    with Bed(Path(directory), **settings) as bed:
        before = bed.plane.read_plane().areas
        victim = start(bed, "victim")
        start(bed, "other")
        near = bed.add(bed.plane.open_port("both", NullPort(n_queues=2, rate_pps=20_000)))
        far = bed.add(bed.plane.open_port("out", NullPort(is_source=False)))
        bed.chain(2, (near, far), ["other"], track_flows=False)
        bed.until(lambda: bed.plane.read_port(far).tx > 1000, 10, "traffic of both queues")
        victim.send_signal(signal.SIGSTOP)
        bed.chain(1, (flood := bed.null_pair()), ["victim"], track_flows=False)
        bed.until(lambda: free(bed)[0] == 0, 10, f"the first node has nothing left: {free(bed)}")
        bed.run(0.1)  # what it had is out
        sent, used_up = bed.plane.read_port(far).tx, free(bed)
        bed.until(
            lambda: bed.plane.read_port(far).tx > sent + 2000,
            10,
            "traffic from the other node",
        )
        meanwhile = free(bed)
        victim.send_signal(signal.SIGCONT)
        bed.until(lambda: bed.plane.read_port(flood[1]).tx > 10_000, 10, "the victim goes on")
        bed.drain()
        bed.run(0.2)
        drained = [[area.free, area.with_nfs] for area in bed.plane.read_plane().areas]
        balance = bed.balance()
        say(
            nodes=[[area.node, area.total, area.free, area.bind_errno != 0] for area in before],
            used_up=used_up,
            meanwhile=meanwhile,
            drained=drained,
            balance=balance,
        )


main()
