"""A hostile NF is thrown out with a reason; its neighbour keeps its traffic, no buffer is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GAP_S = 0.1
ATTEMPTS = 3
RINGS = "it broke the rules of its rings or descriptors"

# mode -> why it is thrown out; "": it breaks no rule, however useless it is
MODES = {
    "behave": "",
    "forged": RINGS,
    "foreign": RINGS,
    "offset": RINGS,
    "length": RINGS,
    "empty": RINGS,
    "verdict": RINGS,
    "stage": RINGS,
    "random": RINGS,
    "double": RINGS,
    "guess": RINGS,
    "stale_head": RINGS,
    "head": RINGS,
    "tail": RINGS,
    "scribble": RINGS,
    "reason": "",
    "bad_port": "",
    "bad_service": "",
    "to_itself": "",
    "keep": "",
    "events": "",
    "deaf": "does not read its messages",
    "claims": "bad message: an NF host may make up to 64 claims",
    "type": "bad message: message type 77",
    "huge": "bad message: message says",
    "babble": "bad message: message",
    "chatter": "",
    "loan_out": "",
    "loan_bad_port": "",
    "loan_to_itself": "",
    "loan_next": "",
    "loan_keep": "",
    "loan_empty": RINGS,
    "loan_head": RINGS,
    "connect": "",
    "silent": "",
    "half": "",
    "garbage": "",
    "attach_1000": "",
}


def test_hostile_nf_harms_only_itself(drive, hostile_nf: Path) -> None:
    missing = list(MODES)
    for _ in range(ATTEMPTS):  # the machine, too, stops programs for 100 ms now and then
        lines = drive("hostile", hostile_nf, *missing, timeout_s=90)
        assert [line["mode"] for line in lines] == missing
        for line in lines:
            check(line)
        missing = [line["mode"] for line in lines if line["gap"] > GAP_S]
        if not missing:
            return
    pytest.fail(f"the neighbour stood still for more than {GAP_S} s beside {missing}")


def check(line: dict[str, Any]) -> None:
    mode, reason = line["mode"], MODES[line["mode"]]
    assert line["good"], f"{mode}: the neighbour is gone"
    assert line["missing"] == 0, f"{mode}: rx + originated != tx + drops"
    assert line["buffers"]["free"] == line["buffers"]["total"], (mode, line["buffers"])
    assert set(line["reserved"].values()) == {0}, (mode, line["reserved"])
    assert bool(line["detached"]) == bool(reason), (mode, line["reasons"])
    assert all(text.startswith(reason) for text in line["reasons"]), (mode, line["reasons"])
    if mode == "attach_1000":
        assert line["attached"] == 16
