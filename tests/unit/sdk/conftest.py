"""Fixtures for tests with data that lies outside the repository."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader
from shared_data import DATA, need_data


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data."""
    return need_data()


def _frames_of(path: Path) -> Iterator[bytes]:
    with RawPcapReader(str(path)) as reader:
        if getattr(reader, "linktype", 1) != 1:
            return
        for frame, meta in reader:
            if getattr(meta, "linktype", 1) != 1:
                return
            yield bytes(frame)


@pytest.fixture
def packets(shared_data: Path, capture: str) -> list[tuple[dict[str, str], bytes]]:
    """The packets of a capture, each with what tshark says of it."""
    expectations = shared_data / "pcap_expect" / f"{capture}.csv.gz"
    if not expectations.is_file():
        pytest.skip(f"no expectations for {capture}")
    with gzip.open(expectations, "rt") as file:
        rows = list(csv.DictReader(file))
    frames = list(_frames_of(shared_data / "pcap" / capture))
    if not frames:
        pytest.skip("another link type")
    return list(zip(rows, frames, strict=True))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per capture, so that a failure names it."""
    if "capture" in metafunc.fixturenames:
        root = DATA / "pcap"
        names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        metafunc.parametrize("capture", names or [""])
