"""Captures, rule sets and vectors that lie beside the repository: tests use them, it holds none.

They are in ``$ONVM_SHARED_DATA``, or in ``../shared/data`` beside the repository. Without them the
tests that need them skip.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["DATA", "captures", "frames_of", "need_data"]

DATA = Path(
    os.environ.get("ONVM_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data"
).resolve()
_MISSING = "shared test data is not there (ONVM_SHARED_DATA)"


def need_data(*parts: str) -> Path:
    """The path of a file or folder of the shared data; without it the test or module skips."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(_MISSING, allow_module_level=True)
    return path


def captures() -> list[Path]:
    """The first two and the smallest captures of each folder, and all malformed ones."""
    chosen: list[Path] = []
    for folder in sorted(need_data("pcap").iterdir()):
        files = sorted(folder.iterdir())
        few = {*files[:2], min(files, key=lambda path: path.stat().st_size)}
        chosen += files if folder.name == "malformed" else sorted(few)
    return chosen


def frames_of(path: Path, most: int) -> list[bytes]:
    """The first `most` frames of a capture, cut to 9,000 bytes; skips what scapy does not read."""
    from scapy.error import Scapy_Exception

    from onvm_sdk.testing.runner import load_frames

    try:
        return [frame[:9000] for frame in load_frames(path)[:most]]
    except Scapy_Exception as error:
        pytest.skip(f"scapy does not read it: {error}")
