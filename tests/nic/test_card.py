"""A machine with network cards: pings and a transfer through a firewall between two of them.

The short form of ``make test-nic``; see there for the other drivers. One to four minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import ROOT, Machine, lacking, lacks_card, prepare

TIMEOUT_S = 400
MISSING = lacking() or lacks_card("e1000e")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")


@pytest.fixture(scope="module")
def folder() -> Path:
    where = ROOT / "build" / "nic"
    try:
        prepare(where)
    except RuntimeError as error:
        pytest.skip(str(error))
    return where


def test_packets_pass_between_two_cards(folder: Path) -> None:
    cases = [{"name": "traffic", "case": "traffic", "huge_pages": 64}]
    outcome = Machine(folder, "e1000e", address_bits=39).run(cases, TIMEOUT_S)
    assert "traffic" in outcome.results, outcome.console[-4000:]
    traffic = outcome.results["traffic"]
    assert not traffic.get("error"), traffic
    assert min(traffic["pings"], traffic["large_pings"]) >= 18, "a slow machine is late at times"
    assert traffic["is_whole"]
    assert not [line for line in traffic["log"] if line.startswith("EAL")]
