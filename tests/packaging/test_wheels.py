"""The installed wheels do their job under this Python: every NF, in every way it can be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def onvm(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [BIN / "onvm", *arguments],
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(folder), "ONVM_RUNTIME_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nfs_of_the_wheels_are_found(tmp_path: Path) -> None:
    found = json.loads(onvm("nf", "list", "--json", folder=tmp_path))
    assert {nf["name"] for nf in found} >= {"firewall", "nat", "lb"}


@pytest.mark.parametrize("options", [[], ["--fuse"]], ids=["separate", "fused"])
def test_a_chain_of_all_plugins_loses_nothing(options: list[str], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    onvm(
        "run",
        "--in",
        "gen:?timeout_ms=3000&flows=64",
        "--out",
        "gen:",
        "--count",
        "5000",
        "--chain",
        "firewall,nat,lb",
        *options,
        "--json",
        str(report),
        folder=tmp_path,
    )
    found = json.loads(report.read_text())
    assert found["rx"] >= 5000
    assert found["rx"] + found["originated"] == found["tx"] + sum(found["drops"].values())
