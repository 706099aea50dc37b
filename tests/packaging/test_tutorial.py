"""The tutorial, followed to the letter in the environment that has the wheels."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual import follow, run

PAGE = (Path(__file__).parents[2] / "docs/tutorial.md").read_text(encoding="utf-8")
PACKAGE = "onvm-nf-dns-guard"

pytest.importorskip("cookiecutter", reason="needs the extra 'author'")
pytest.importorskip("scapy", reason="needs the extra 'author'")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets have room for 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="onvm-tut-") as name:
        try:
            yield Path(name)
        finally:
            if (Path(name) / "r/main").exists():
                subprocess.run(
                    [sys.executable, "-P", "-m", "onvm_core.cli", "down"],
                    env={"ONVM_RUNTIME_DIR": f"{name}/r"},
                    capture_output=True,
                    check=False,
                )
            subprocess.run(
                [sys.executable, "-m", "pip", "uninstall", "-q", "-y", PACKAGE], check=False
            )


def test_tutorial_runs(folder: Path) -> None:
    printed = follow(PAGE, folder)
    (over_capture,) = (text for command, text in printed.items() if "pcap:out.pcap" in command)
    assert "100 received" in over_capture
    assert "90 sent" in over_capture
    assert "large" in over_capture
    counts = "from scapy.all import rdpcap; print(len(rdpcap('out.pcap')))"
    assert run([sys.executable, "-c", counts], folder).strip() == "90"
    assert "1 passed" in printed["python -m pytest test_guard.py"]
    assert PACKAGE in printed["onvm nf list"]
    assert "dns-guard-1" in printed["onvm status"]
    (wheel,) = (folder / "dist").iterdir()
    assert wheel.name == "onvm_nf_dns_guard-0.1.0-py3-none-any.whl"
