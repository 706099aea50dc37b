"""The manual's table of drop reasons says what the data plane's list says."""

from __future__ import annotations

import re
from pathlib import Path

from onvm_core._native.counters import drop_reasons

MANUAL = Path(__file__).parents[2] / "docs" / "operating.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


def test_the_manual_lists_every_drop_reason_with_its_meaning() -> None:
    text = MANUAL.read_text()
    table = text[text.index("| reason | meaning |") :].split("\n\n", 1)[0]
    assert dict(ROW.findall(table)) == drop_reasons()
