"""The documentation site: it builds without a warning, and its pages say what is true."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")

from onvm_sdk import Verdict
from onvm_sdk.testing import run
from onvm_sdk.testing.frames import udp

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TTL = 14 + 8
"""Where a packet without VLAN tags has it."""
HEADING = re.compile(r"^### `(.+)`$", re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_blocks(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(block, names)
    return names


@pytest.mark.skipif(importlib.util.find_spec("furo") is None, reason="needs sphinx and furo")
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sphinx", "-q", "-W", "--keep-going", DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site/reference/commands.html").read_text(encoding="utf-8")
    assert "onvm cluster chain add" in commands
    sdk = (tmp_path / "site/reference/sdk.html").read_text(encoding="utf-8")
    assert "onvm_sdk.nf.NetworkFunction" in sdk


def texts() -> Iterator[str]:
    """All texts in the source, as they are printed: values in f-strings are left out."""
    for folder in ("onvm_core", "onvm_sdk"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_messages_of_the_page_on_trouble_are_printed() -> None:
    known = list(texts())
    for message in HEADING.findall((DOCS / "troubleshooting.md").read_text(encoding="utf-8")):
        assert any(message in text for text in known), message


def test_ported_nf_of_opennetvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onvm_ported_ttl.py").write_text(blocks("coming-from-opennetvm.md", "python")[0])
    (tmp_path / "onvm-nf.toml").write_text(blocks("coming-from-opennetvm.md", "toml")[0])
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("onvm_ported_ttl").Ttl
    frame = udp("10.0.0.1", 1, "10.0.0.2", 2)
    expired = bytearray(frame)
    expired[TTL] = 1
    result = run(kind, [frame, bytes(expired)])
    assert result.verdicts == [Verdict.NEXT, Verdict.DROP]
    assert result.reasons[1] == "expired"
    assert result.packets[0][TTL] == frame[TTL] - 1


def test_ported_nf_of_scapy_does_the_same() -> None:
    scapy = pytest.importorskip("scapy.all")
    names = run_blocks("coming-from-scapy.md")
    for port in (53, 54):
        packet = scapy.Ether() / scapy.IP() / scapy.UDP(dport=port) / b"query"
        wanted = bytes(names["rewrite"](scapy.Ether(bytes(packet))))
        assert run(names["HideDns"], [packet]).packets == [wanted]
