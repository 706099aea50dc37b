"""A hostile NF beside an innocent one, mode after mode.

Usage: hostile.py DIRECTORY HOSTILE_NF MODE…; one line of JSON per mode.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bed import Bed, say

from onvm_core.manager.nf_hosts.registry import HostState

WATCH_S = 0.35
KNOCKERS = {"connect", "silent", "half", "garbage", "attach_1000"}


def main() -> None:
    directory, program, *modes = sys.argv[1:]
    with Bed(Path(directory)) as bed:
        near, far = bed.null_pair(rate_pps=100_000)
        bed.chain(1, (near, far), ["good"], track_flows=False)
        bed.chain(2, bed.null_pair(rate_pps=50_000), ["bad"], track_flows=False)
        good = bed.start(program, bed.manager.attach_path, "good", "behave")
        bed.until(lambda: bool(bed.serving("good")), 5, "the innocent NF")
        for mode in modes:
            bed.resume()
            process = bed.start(program, bed.manager.attach_path, "bad", mode)
            if mode not in KNOCKERS:
                bed.until(lambda p=process: bool(bed.hosts_of(p)), 5, f"{mode} attaches")
            gap = bed.longest_gap_s(far, WATCH_S)
            hosts = bed.hosts_of(process)
            dead = [host for host in hosts if host.state is HostState.DEAD]
            reasons = sorted({host.reason for host in dead})
            bed.kill(process)
            bed.until(
                lambda hosts=hosts: all(host.state is HostState.DEAD for host in hosts),
                5,
                f"{mode} is gone",
            )
            bed.run(0.02)
            can_attach = bool(bed.serving("good")) and good.poll() is None
            bed.drain()
            say(
                mode=mode,
                gap=gap,
                attached=len(hosts),
                detached=len(dead),
                reasons=reasons,
                buffers=bed.buffers(),
                missing=bed.balance()["missing"],
                reserved=bed.reserved(),
                good=can_attach,
                flows=bed.plane.read_plane().flows,
            )


main()
