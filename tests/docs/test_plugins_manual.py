"""The manual has a section for every hook, and none for hooks that are not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onvm_core.plugins.hookspecs import HookSpecs

MANUAL = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
HOOKS = {name for name in vars(HookSpecs) if name.startswith("onvm_")}


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_hook_has_a_section_and_a_docstring(hook: str) -> None:
    assert re.search(rf"^### {hook}$", MANUAL, re.MULTILINE)
    assert getattr(HookSpecs, hook).__doc__


def test_manual_describes_no_other_hook() -> None:
    assert set(re.findall(r"^### (onvm_\w+)$", MANUAL, re.MULTILINE)) == HOOKS
