"""Defaults and limits in the manuals are those of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.startup.environment import DataplaneConfig
from onvm_sdk import limits
from onvm_sdk.manifest import Manifest

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "docs/operating.md").read_text()
AUTHORS = (ROOT / "docs/writing-nfs.md").read_text()


def _example(start: str) -> dict[str, Any]:
    """Keys of the first table in the manual whose line is `start`."""
    text = OPERATING[OPERATING.index(f"\n{start}\n") + len(start) + 2 :]
    return tomllib.loads(re.split(r"\n\n|```|\n\[", text, maxsplit=1)[0])


@pytest.mark.parametrize(
    ("start", "config", "examples"),
    [
        ("[dataplane]", DataplaneConfig(), {"cpus", "huge_pages"}),
        ("[scale.firewall]", ScaleConfig(), {"options"}),
    ],
)
def test_an_example_of_onvm_toml_shows_defaults(
    start: str, config: msgspec.Struct, examples: set[str]
) -> None:
    default = msgspec.structs.asdict(config)
    shown = _example(start)
    assert set(shown) - set(default) == set()
    assert set(default) - set(shown) <= examples
    assert {name: value for name, value in shown.items() if name not in examples} == {
        name: default[name] for name in shown if name not in examples
    }


@pytest.mark.parametrize(
    "text",
    [
        f"The manifest names the drop reasons, at most {limits.REASONS_MAX}.",
        f"| up to {limits.COUNTERS_MAX} names each |",
        f"headers in the headroom ({limits.HEADROOM} bytes)",
        f"preferred number of packets in a burst, 1 to {limits.BURST_MAX} |",
        f"The default of {Manifest._FIELDS['memory_mib'].default} MiB",
        f"{limits.STATE_BYTES_MAX >> 20} MiB at most",
    ],
)
def test_the_manual_for_authors_names_limits(text: str) -> None:
    assert text in AUTHORS


def test_the_manual_of_clusters_names_the_port_of_the_data_network() -> None:
    header = (ROOT / "native/dataplane/peers/nsh.h").read_text()
    match = re.search(r"#define ONVM_VXLAN_GPE_PORT (\d+)", header)
    assert match is not None
    assert f"UDP {match[1]}" in (ROOT / "docs/cluster.md").read_text()
