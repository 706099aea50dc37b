"""Run one scenario with a manager in a process of its own: DPDK's environment is one per process.

A scenario is the text of Python code that is given `manager`, its `plane`, the options of
ports, `Path`, `until`, `directory` and `arguments`, and leaves its answer, anything that JSON
knows, in `result`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

_FRAME = """
import json, sys, time
from pathlib import Path
from msgspec import to_builtins as counters
from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.values import DataplaneSettings, GenPort, NullPort, PcapPort
from onvm_core.manager.captures.capture import Capture, CapturePoint
from onvm_core.manager.manager import Manager

directory = Path(sys.argv[1])
arguments = json.loads(sys.argv[2])
result = None

def until(condition, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the scenario's condition does not come true")
        manager.poll(0.005)

workers = arguments.get("workers", 1)
settings = DataplaneSettings(n_workers=workers, **arguments.get("settings", {}))
with Manager(directory / "run", settings, list(range(workers))) as manager:
    plane = manager.plane
    plane.pause_sources(True)
%s
    last = plane.read_plane()
print(json.dumps({"result": result, "plane": counters(last)}))
"""


def run(code: str, directory: Path, timeout_s: float = 60, **arguments: Any) -> dict[str, Any]:
    """Run a scenario; its `result`, and the data plane's last counters as ``plane``."""
    program = _FRAME % textwrap.indent(textwrap.dedent(code), "    ")
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(directory), json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
