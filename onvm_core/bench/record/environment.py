"""The environment of a benchmark: what one needs to repeat it, or to explain another result."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

__all__ = ["Environment"]

UNKNOWN = "unknown"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, the software and the command of a benchmark.

    Attributes:
        date: when it began, in UTC, as ISO 8601.
        command: the command line, as a shell takes it.
        cpu: model of the CPU.
        cpus: number of CPUs that this process may use.
        governor: frequency governors of the CPUs; "unknown" where the machine has none, as many
            virtual machines.
        isolated: CPUs that the kernel leaves alone (``isolcpus``), as the kernel lists them.
        kernel: release of the kernel.
        virtual: whether this is a virtual machine.
        memory_mib: size of the memory.
        load: load average of the minute before.
        onvm: version of onvm.
        dpdk: version of DPDK.
        python: version of Python.
    """

    date: str
    command: str
    cpu: str
    cpus: int
    governor: str
    isolated: str
    kernel: str
    virtual: bool
    memory_mib: int
    load: float
    onvm: str
    dpdk: str
    python: str

    @classmethod
    def read(
        cls, dpdk: str, arguments: Sequence[str] = sys.argv, root: Path = Path("/")
    ) -> Environment:
        """The environment now.

        Args:
            dpdk: version of DPDK.
            arguments: the command line.
            root: folder that has `proc` and `sys`; tests give another.
        """
        flags, cpu = _cpu(root)
        program = Path(arguments[0]).name if arguments else ""
        return cls(
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=shlex.join([program, *arguments[1:]]),
            cpu=cpu,
            cpus=len(os.sched_getaffinity(0)),
            governor=_governor(root),
            isolated=_text(root / "sys/devices/system/cpu/isolated"),
            kernel=platform.release(),
            virtual="hypervisor" in flags,
            memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            load=round(os.getloadavg()[0], 2),
            onvm=version("onvm"),
            dpdk=dpdk,
            python=platform.python_version(),
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return UNKNOWN


def _cpu(root: Path) -> tuple[list[str], str]:
    """Flags and model of the first CPU."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields.get("flags", "").split(), fields.get("model name", platform.machine())


def _governor(root: Path) -> str:
    files = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({_text(file) for file in files})) or UNKNOWN
