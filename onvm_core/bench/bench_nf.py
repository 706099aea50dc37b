"""Start the NFs that benchmarks measure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onvm_core
from onvm_core.bench.plugins import write_configs

__all__ = ["WAYS", "measure_wakeups", "start_nf"]

WAYS = {
    "columns": "onvm_core.bench.nfs:W2Columns",
    "packets": "onvm_core.bench.nfs:W2Packets",
    "kernel": "onvm_core.bench.nfs:W2Kernel",
    "python": "onvm_core.bench.nfs:Pass",
}


def c_program() -> Path:
    """The benchmark NF in C."""
    return Path(str(onvm_core.__file__)).parent / "bin" / "onvm-bench-nf"


def measure_wakeups(rate: int, seconds: float, cpus: tuple[int, ...]) -> tuple[float, float]:
    """Measure the cost of sleeping and waking for `rate` packets per second, without packets.

    Args:
        cpus: the CPU of a worker, which sleeps until the next packet is due, and the CPU of an NF
            host; the two wake each other. With one CPU the worker only sleeps.

    Returns:
        CPU time of all processes in percent of a core, and the median time from one process to the
        other and back, in microseconds.
    """
    program = Path(str(onvm_core.__file__)).parent / "bin" / "onvm-bench-wakeups"
    done = subprocess.run(
        [program, str(rate), str(int(seconds * 1000)), *map(str, cpus)],
        capture_output=True,
        text=True,
        check=True,
    )
    percent, microseconds = map(float, done.stdout.split())
    return percent, microseconds


def start_nf(
    way: str, attach_path: Path, services: Sequence[str], burst: int, cpu: int
) -> subprocess.Popen[bytes]:
    """Start an NF host for `services`; several are fused (ways "c" and "plugins" only)."""
    if way == "c":
        # The program numbers the services of fused stages itself: w0, w1, …
        stem = services[0] if len(services) == 1 else services[0].rstrip("0123456789")
        command = [
            str(c_program()),
            str(attach_path),
            stem,
            str(len(services)),
            str(burst),
            str(cpu),
        ]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)
    if way == "plugins":
        nfs = ["--nf", ",".join(services), *write_configs(attach_path.parent, services)]
    else:
        nfs = ["--nf", WAYS[way], "--service", services[0]]
    command = [
        sys.executable,
        "-P",
        "-m",
        "onvm_sdk.runtime",
        "--socket",
        str(attach_path),
        *nfs,
        "--core",
        str(cpu),
        "--burst-size",
        str(burst),
        "--leave-with-manager",
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=dict(os.environ))
