# SPDX-License-Identifier: Apache-2.0
"""The examples of the manual are valid, and do what it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from onvm_nf_firewall.config import load
from onvm_nf_firewall.explain import explain, read_packet
from onvm_nf_firewall.rules import RuleText
from onvm_nf_firewall.shadowed import warnings

README = Path(__file__).resolve().parents[1] / "README.md"
if not README.is_file():
    pytest.skip("the manual is not installed", allow_module_level=True)
TEXT = README.read_text()


@pytest.fixture
def config(tmp_path: Path) -> dict:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None
    (tmp_path / "blocked.txt").write_text("198.51.100.0/24 # a network\n")
    return tomllib.loads(example[1]) | {"set_files": [str(tmp_path / "blocked.txt")]}


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        ("in=wan tcp 198.51.100.5:999 > 192.0.2.80:80 syn", "drop: rules[0] matches"),
        ("in=lan tcp 192.0.2.5:999 > 9.9.9.9:80 syn", "accept: rules[1] matches"),
        ("in=wan tcp 203.0.113.5:999 > 192.0.2.80:80 syn", "accept: chains.web[0] matches"),
        ("in=wan tcp 203.0.113.5:999 > 192.0.2.80:22 syn",
         "drop: no rule decides, and the default is drop"),
        ("icmp 192.0.2.1 > 192.0.2.2 echo-request", "accept: rules[3] matches"),
        ("in=lan udp [2001:db8::1]:5 > [2001:db8::2]:53", "reject: rules[4] matches"),
    ],
)  # fmt: skip
def test_example_does_what_it_says(config: dict, packet: str, expected: str) -> None:
    checked = load(config)
    assert not warnings(checked)
    assert next(explain(checked, read_packet([packet]))) == expected


def test_every_field_and_action_is_in_the_manual() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(RuleText)}
    listed = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"(?m)^\| (`.*?) \|", TEXT))))
    told = {"action", "chain", "prefix", "reject"}  # in the table of actions
    assert fields - told <= listed
    actions = {"accept", "drop", "reject", "log", "count", "jump", "goto", "return"}
    assert actions <= listed
