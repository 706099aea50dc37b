"""One NF, or a chain of them, in a real manager: packets through rings, with the real host process.

The fixture `nf_manager` gives the function `run_managed`. It needs no root and no network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onvm_sdk.nf import NetworkFunction
from onvm_sdk.testing.golden import write_capture
from onvm_sdk.testing.runner import Frames, load_frames

__all__ = ["Managed", "ManagerError", "run_managed"]

TIMEOUT_S = 120.0


class ManagerError(AssertionError):
    """The manager ended with an error; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Managed:
    """The outcome of a run in a manager.

    Args:
        packets: the packets that left, in order.
        report: the manager's report, as ``onvm run --json`` writes it.
    """

    packets: list[bytes]
    report: Mapping[str, Any]


def run_managed(
    nfs: str | type[NetworkFunction] | Sequence[str | type[NetworkFunction]],
    packets: Frames,
    *,
    configs: Mapping[str, str | os.PathLike[str]] | None = None,
    options: Sequence[str] = (),
) -> Managed:
    """Send packets through NFs with ``onvm run``.

    Args:
        nfs: in chain order: names of installed NFs, ``FILE.py:Class``, or classes of a module or
            test file.
        packets: bytes, scapy packets, or the path of a pcap file.
        configs: configuration files by NF name.
        options: more options of ``onvm run``, such as ``["--fuse"]``.

    Raises:
        ManagerError: it ended with an error.
    """
    many = [nfs] if isinstance(nfs, (str, type)) else list(nfs)
    with tempfile.TemporaryDirectory(prefix="onvm-test-") as name:
        folder = Path(name)
        write_capture(folder / "in.pcap", load_frames(packets))
        command = [sys.executable, "-P", "-m", "onvm_core.cli", "run"]
        command += ["--in", f"pcap:{folder}/in.pcap", "--out", f"pcap:{folder}/out.pcap"]
        command += ["--chain", ",".join(map(_name, many)), "--json", f"{folder}/report.json"]
        for nf, file in (configs or {}).items():
            command += ["--nf-config", f"{nf}={os.fspath(file)}"]
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        done = subprocess.run(
            [*command, *options],
            env={**os.environ, "ONVM_RUNTIME_DIR": str(runtime)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise ManagerError(f"onvm run ended with status {done.returncode}: {done.stderr}")
        report = json.loads((folder / "report.json").read_text())
        return Managed(load_frames(folder / "out.pcap"), report)


def _name(nf: str | type[NetworkFunction]) -> str:
    if isinstance(nf, str):
        return nf
    file = sys.modules[nf.__module__].__file__
    if file is None or "." in nf.__qualname__:
        raise ValueError(f"{nf.__qualname__}: expected a class at the top of a file")
    return f"{file}:{nf.__qualname__}"
