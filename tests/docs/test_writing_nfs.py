"""Each NF in the manual for authors runs, compiled and interpreted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")

from onvm_sdk import NetworkFunction, Verdict
from onvm_sdk.errors import ConfigError
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import SYN, tcp, udp

MANUAL = (Path(__file__).parents[2] / "docs" / "writing-nfs.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", MANUAL, re.MULTILINE | re.DOTALL)
FRAMES = [
    udp("10.0.0.1", 1, "10.1.0.2", 53),
    tcp("10.0.0.1", 1, "10.1.0.2", 22, SYN),
    tcp("10.0.0.1", 1, "192.0.2.1", 22, SYN),
    bytes(64),
]
NEXT, DROP, OUT, HOLD = Verdict.NEXT, Verdict.DROP, Verdict.OUT, Verdict.HOLD
EXPECTED = {
    "PortBlocker": [DROP, NEXT, NEXT, NEXT],
    "NoShell": [NEXT, DROP, NEXT, NEXT],
    "Router": [OUT, OUT, DROP, DROP],
    "Blocker": [DROP, NEXT, NEXT, NEXT],
    "Leases": [NEXT, NEXT, NEXT, NEXT],
    "Delay": [HOLD, HOLD, HOLD, HOLD],
}


def _nf_classes() -> dict[str, type[NetworkFunction]]:
    found: dict[str, type[NetworkFunction]] = {}
    for block in BLOCKS:
        if "(NetworkFunction)" in block:
            names: dict[str, Any] = {}
            exec(block, names)
            found |= {
                name: value
                for name, value in names.items()
                if isinstance(value, type) and issubclass(value, NetworkFunction)
            }
    found.pop("NetworkFunction")
    return found


@pytest.mark.parametrize("compiled", [True, False])
def test_nfs_of_the_manual_run(compiled: bool) -> None:
    classes = _nf_classes()
    assert set(classes) == set(EXPECTED)
    for name, kind in classes.items():
        with Runner(kind(), compiled=compiled) as runner:
            result = runner.run(FRAMES)
            assert not result.broken, name
            assert result.verdicts == EXPECTED[name], name
            runner.stages[0].nf.on_timer(1 << 62)


@pytest.mark.parametrize("compiled", [True, False])
def test_nf_of_the_manual_takes_a_new_configuration(compiled: bool) -> None:
    kind = _nf_classes()["Blocker"]
    frames = [udp("10.0.0.1", 1, "10.1.0.2", port) for port in (53, 80)]
    with Runner(kind(), compiled=compiled) as runner:
        assert runner.run(frames).verdicts == [DROP, NEXT]
        runner.reconfigure({"ports": [80]})
        assert runner.run(frames).verdicts == [NEXT, DROP]
        with pytest.raises(ConfigError, match=r"ports\[1\]: 70000: expected 0 to 65535"):
            runner.reconfigure({"ports": [1, 70000]})
        assert runner.run(frames).verdicts == [NEXT, DROP]


def test_lists_of_the_manual_are_shown_and_killed() -> None:
    with Runner(_nf_classes()["Leases"]()) as runner:
        runner.run(FRAMES)
        assert runner.show("hosts") == [{"host": "10.0.0.1", "packets": 3}]
        assert runner.kill("hosts", {"host": "10.0.0.0/8"}) == 1
        assert runner.show("hosts") == []


def test_examples_of_tests_pass() -> None:
    blocks = [block for block in BLOCKS if "from onvm_sdk.testing import" in block]
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {**_nf_classes(), "packet": udp("10.0.0.1", 1, "10.1.0.2", 53)})
