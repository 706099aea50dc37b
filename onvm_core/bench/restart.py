"""How long traffic rests when a manager is killed and another one takes its place.

A manager is started by ``onvm up``, with one NF. It is killed, and another one is started at once,
which adopts the NF. What is measured is the time from the death of the one until the other has sent
a packet: with the start of Python and of DPDK's environment (EAL), which is measured beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from onvm_core._native import dataplane
from onvm_core._native.dataplane import DataplaneSettings
from onvm_core.bench.scenario import Scenario
from onvm_core.manager.client import Client
from onvm_core.manager.environment import split_cpus
from onvm_core.manager.manager import eal_arguments
from onvm_core.manager.messages import StatusReply, StatusRequest
from onvm_core.plugins import discover
from onvm_sdk.errors import OnvmError

__all__ = ["KINDS", "installed_nf"]

WAIT_S = 30.0
POLL_S = 0.001
NFS = ("firewall", "lb", "nat")
"""Any of them will do: the first one that is installed."""
CONFIG = """
[ports.near]
uri = "null:?flows=64&rate=20000"
[ports.far]
uri = "null:"
[nfs.{nf}]
[chains.main]
in = "near"
out = "far"
services = ["{nf}"]
"""


def installed_nf() -> str | None:
    """An NF that can be measured with."""
    names = {package.name for package in discover()}
    return next((name for name in NFS if name in names), None)


def _eal(scenario: Scenario) -> dict[str, float]:
    """The start of the environment and of the tables, in milliseconds."""
    del scenario
    workers, _ = split_cpus(1)
    begin = time.perf_counter()
    dataplane.init(DataplaneSettings(), eal_arguments(workers))
    return {"ms": (time.perf_counter() - begin) * 1000}


def _python(scenario: Scenario) -> dict[str, float]:
    """The start of the interpreter with the modules of ``onvm up``, in milliseconds."""
    del scenario
    with tempfile.TemporaryDirectory(prefix="onvm-bench-") as name:
        (Path(name) / "onvm.toml").write_text(CONFIG.format(nf=installed_nf()))
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-P", "-m", "onvm_core.cli", "up", "--check"], cwd=name, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return {"ms": (time.perf_counter() - begin) * 1000}


def _restart(scenario: Scenario) -> dict[str, float]:
    """From the death of a manager until the next one has sent a packet."""
    del scenario
    nf = installed_nf()
    if nf is None:
        raise OnvmError(f"none of {', '.join(NFS)} is installed")
    with tempfile.TemporaryDirectory(prefix="onvm-bench-") as name:
        folder = Path(name)
        (folder / "onvm.toml").write_text(CONFIG.format(nf=nf))
        with _manager(folder) as first:
            _until(lambda: _sent(folder) > 1000, first)
            first.send_signal(signal.SIGKILL)
            first.wait()
            begin = time.perf_counter()
        with _manager(folder) as second:
            _until(lambda: _sent(folder) > 0, second)
            gap = time.perf_counter() - begin
            second.send_signal(signal.SIGTERM)
            second.wait()
    return {"ms": gap * 1000}


@contextlib.contextmanager
def _manager(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "onvm_core.cli", "up", "-f", "onvm.toml"], cwd=folder,
        env={**os.environ, "ONVM_RUNTIME_DIR": str(folder / "r")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    except BaseException:
        process.send_signal(signal.SIGTERM)  # its NFs go with it
        raise
    finally:
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _sent(folder: Path) -> int:
    """Packets that the manager has sent; 0 while there is none."""
    try:
        with Client(folder / "r" / "main") as client:
            return client.ask(StatusRequest(), StatusReply).report.tx
    except (OnvmError, OSError, msgspec.MsgspecError):
        return 0


def _until(is_true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + WAIT_S
    while not is_true():
        if process.poll() is not None or time.perf_counter() > deadline:
            raise OnvmError("the manager did not come to send packets")
        time.sleep(POLL_S)


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "elastic_eal": _eal,
    "elastic_python": _python,
    "elastic_restart": _restart,
}
