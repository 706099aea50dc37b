"""Fixtures for tests with data that lies outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SHARED_DATA = Path(os.environ.get("ONVM_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared captures: ONVM_SHARED_DATA, or beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no shared data at {SHARED_DATA}")
    return SHARED_DATA


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per capture, so that a failure names it."""
    if "capture" in metafunc.fixturenames:
        root = SHARED_DATA / "pcap"
        names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        metafunc.parametrize("capture", names or [""])
