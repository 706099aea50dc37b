"""What a test with a manager may leave, and its end: processes, cgroups, its folder.

As a script, it cleans up when its standard input closes, which no signal can prevent.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

from onvm_core.launch.cgroup import Cgroups, is_abandoned
from onvm_core.launch.cgroup_tree import read_trees
from onvm_core.launch.identity import ProcessId, find_by_environment, namespace_init
from onvm_core.launch.launcher import SECRET_VARIABLE


def launched_processes(runtime: Path) -> list[ProcessId]:
    """The processes of launched NFs that run, with what they have started."""
    secrets = [
        record["secret"]
        for path in runtime.glob("*/nfs.json")
        for record in json.loads(path.read_text())
    ]
    return [one for secret in secrets for one in find_by_environment(SECRET_VARIABLE, secret)]


def clean(folder: Path) -> list[str]:
    """End the processes of managers below a folder, then remove it; who they were."""
    left = []
    for process in launched_processes(folder / "r"):
        for one in (namespace_init(process), process):
            if one is not None:
                one.send(signal.SIGKILL)
    for name in ("manager.json", "nfs.json"):
        for path in folder.glob(f"r/*/{name}"):
            records = json.loads(path.read_text())
            for record in records if isinstance(records, list) else [records]:
                process = ProcessId(record["pid"], record["start_time"])
                if process.is_alive:
                    left.append(f"{path}: {record['pid']}")
                    process.send(signal.SIGKILL)
                    process.wait(2)
    shutil.rmtree(folder, ignore_errors=True)
    sweep_cgroups()
    return left


def sweep_cgroups() -> None:
    """Remove the cgroups of managers that are dead, when those in them are."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        Cgroups().sweep()
        left = [
            folder
            for tree in read_trees()
            for base in (tree.own, *tree.above)
            for folder in base.glob("onvm/*")
            if is_abandoned(folder.name)
        ]
        if not left:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.stdin.read()
    left = Path(sys.argv[1])
    for command in find_by_environment("ONVM_RUNTIME_DIR", str(left / "r")):
        command.send(signal.SIGKILL)  # one that a killed test was waiting for
    clean(left)
