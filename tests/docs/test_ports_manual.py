"""The manual of ports has a section for every kind, and a row for every option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onvm_core.plugins import load_plugins
from onvm_core.plugins.port_kind import PortKind

MANUAL = (Path(__file__).parents[2] / "docs" / "ports.md").read_text(encoding="utf-8")
OFFERS = load_plugins().offers("onvm_port_kinds")


def rows(kind: PortKind) -> list[str]:
    return [
        f"| `{one.name}` | {one.expected} | {_shown(one.default)} | {one.help} |"
        for one in kind.options_help()
    ]


def _shown(default: object) -> str:
    if default == "":
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


@pytest.mark.parametrize("scheme", OFFERS)
def test_options_stand_in_the_manual(scheme: str) -> None:
    found = re.search(rf"^## `{scheme}:.*?$(.*?)(?=^## |\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found is not None
    kind = OFFERS[scheme].load()
    written = [line for line in found[1].splitlines() if line.startswith("| `")]
    assert written == rows(kind)
    assert all(one.help.endswith(".") for one in kind.options_help())


def test_manual_describes_no_other_kind() -> None:
    assert sorted(re.findall(r"^## `(\w+):", MANUAL, re.MULTILINE)) == list(OFFERS)
