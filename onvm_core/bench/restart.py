"""The end of a manager: the pause of traffic until another one has taken its place, and the time
that it takes with many NFs.

``onvm up`` starts a manager with one NF. The manager is killed, or ended by ``onvm down
--keep-nfs``. Another one starts at once and adopts the NF. The scenario measures the time from the
end of the first manager until the other has sent its first packet, and the parts of that time.

The counter of sent packets gives the time of the first packet, because the source has a constant
rate from its first packet on. The scenario checks the rate.

``elastic_end`` measures ``onvm down`` of a manager with 64 NF hosts that have tables.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from onvm_core.bench.scenario import Scenario
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.messages import DownReply, DownRequest, StatusReply, StatusRequest
from onvm_core.plugins import discover
from onvm_sdk.errors import OnvmError

__all__ = ["KINDS", "N_ENDED", "WITH_TABLES", "installed_nf"]

WAIT_S = 30.0
POLL_S = 0.001
CHECK_S = 0.5
RATE_PPS = 20_000
RATE_TOLERANCE = 0.02
NFS = ("firewall", "lb", "nat")
"""Candidates; the first one that is installed is used."""
N_ENDED = 64
WITH_TABLES = ("lb", "firewall")
"""Likewise for the end of many; those of "lb" are DPDK's."""
ONVM = [sys.executable, "-P", "-m", "onvm_core.cli"]
CONFIG = f"""
[ports.near]
uri = "null:?flows=64&rate={RATE_PPS}"
[ports.far]
uri = "null:"
[nfs.NF]
instances = COUNT
[chains.main]
in = "near"
out = "far"
services = ["NF"]
"""


def installed_nf(candidates: Sequence[str] = NFS) -> str | None:
    """The NF to measure with."""
    names = {package.name for package in discover()}
    return next((name for name in candidates if name in names), None)


@contextlib.contextmanager
def _configured(candidates: Sequence[str], count: int) -> Iterator[Path]:
    """A folder with an ``onvm.toml`` for so many instances of an NF."""
    nf = installed_nf(candidates)
    if nf is None:
        raise OnvmError(f"none of {', '.join(candidates)} is installed")
    with tempfile.TemporaryDirectory(prefix="onvm-bench-") as name:
        folder = Path(name)
        text = CONFIG.replace("NF", nf).replace("COUNT", str(count))
        (folder / "onvm.toml").write_text(text)
        yield folder


def _kill(folder: Path, manager: subprocess.Popen[bytes]) -> float:
    del folder
    begin = time.monotonic()
    manager.kill()
    manager.wait()
    return begin


def _down(folder: Path, manager: subprocess.Popen[bytes]) -> float:
    """Let the manager stop its sources, drain, and leave its NFs to the next one."""
    with Client(folder / "r" / "main") as client:
        begin = time.monotonic()
        client.ask(DownRequest(keep_nfs=True), DownReply)
    manager.wait()
    return begin


def _restart(
    end: Callable[[Path, subprocess.Popen[bytes]], float],
) -> Callable[..., dict[str, float]]:
    def measure(scenario: Scenario) -> dict[str, float]:
        """Time from the end of a manager until the next one has sent a packet, in milliseconds."""
        del scenario
        with _configured(NFS, 1) as folder:
            with _manager(folder) as first:
                _until_sent(folder, 1000, first)
                begin = end(folder, first)
            execution = time.monotonic()
            with _manager(folder) as second:
                first_packet, status = _first_packet(folder, second)
                second.send_signal(signal.SIGTERM)
                second.wait()
        assert status.startup is not None
        start = status.startup
        return {
            "gap": (first_packet - begin) * 1000,
            "end": (execution - begin) * 1000,
            "interpreter": (start.began_s - execution) * 1000,
            **{f"lap.{lap}": ms for lap, ms in start.laps_ms.items()},
            **{f"beside.{part}": ms for part, ms in start.beside_ms.items()},
        }

    return measure


def _end_many(scenario: Scenario) -> dict[str, float]:
    """Time that ``onvm down`` takes, in milliseconds."""
    del scenario
    with _configured(WITH_TABLES, N_ENDED) as folder, _manager(folder) as manager:
        _until_sent(folder, 1000, manager)
        begin = time.monotonic()
        subprocess.run(
            [*ONVM, "down"], env=_environment(folder), stdout=subprocess.DEVNULL, check=True
        )
        return {"ms": (time.monotonic() - begin) * 1000}


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "ONVM_RUNTIME_DIR": str(folder / "r")}


@contextlib.contextmanager
def _manager(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*ONVM, "up", "-f", "onvm.toml"],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    except BaseException:
        process.send_signal(signal.SIGTERM)  # its NFs go with it
        raise
    finally:
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _status(folder: Path) -> tuple[float, StatusReply] | None:
    """The manager's report, and its time; None as long as there is none."""
    try:
        with Client(folder / "r" / "main") as client:
            client.ask(StatusRequest(), StatusReply)  # imports of the first request do not count
            return time.monotonic(), client.ask(StatusRequest(), StatusReply)
    except (OnvmError, OSError, msgspec.MsgspecError):
        return None


def _until_sent(
    folder: Path, count: int, process: subprocess.Popen[bytes]
) -> tuple[float, StatusReply]:
    """Wait until the manager has sent more than `count` packets."""
    deadline = time.monotonic() + WAIT_S
    while (found := _status(folder)) is None or found[1].report.tx <= count:
        if process.poll() is not None or time.monotonic() > deadline:
            raise OnvmError("the manager did not come to send packets")
        time.sleep(POLL_S)
    return found


def _first_packet(folder: Path, process: subprocess.Popen[bytes]) -> tuple[float, StatusReply]:
    """Time at which the manager sent its first packet."""
    at, status = _until_sent(folder, 0, process)
    time.sleep(CHECK_S)
    later = _status(folder)
    if later is None:
        raise OnvmError("the manager has ended")
    rate = (later[1].report.tx - status.report.tx) / (later[0] - at)
    if abs(rate / RATE_PPS - 1) > RATE_TOLERANCE:
        raise OnvmError(f"{rate:.0f} packets a second were sent, not {RATE_PPS}")
    return at - status.report.tx / RATE_PPS, status


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "elastic_restart": _restart(_kill),
    "elastic_down_up": _restart(_down),
    "elastic_end": _end_many,
}
