"""How long an NF holds flows, as its manifest and its configuration say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onvm_sdk.errors import ManifestError
from onvm_sdk.flow_lifetimes import lifetimes_ms
from onvm_sdk.manifest import FLOW_CLASSES, Manifest, parse_manifest, read_config, read_manifest

ROOT = Path(__file__).parents[3]
CONFIG = {"udp_s": {"type": "int", "default": 300}, "opening_s": {"type": "float", "default": 0.5}}


def manifest(**keys: Any) -> Manifest:
    data = {"schema": 1, "name": "x", "sdk": ">=0", "state": "per-flow", "config": CONFIG}
    return parse_manifest({**data, **keys}, "onvm-nf.toml")


def held(**lifetimes: Any) -> list[int] | None:
    known = manifest(flow_lifetimes=lifetimes)
    return lifetimes_ms(known, read_config(known, {}))


def test_lifetimes_follow_from_the_configuration() -> None:
    assert held(tcp=7440, udp="udp_s", udp_opening="opening_s", other="max(udp_s, 600) + 1") == [
        *(0, 7_440_000, 0),
        *(500, 300_000, 0, 601_000),
    ]


def test_nf_that_says_nothing_holds_none_or_for_an_unknown_time() -> None:
    assert lifetimes_ms(manifest(), {}) is None
    assert lifetimes_ms(manifest(state="none"), {}) == [0] * len(FLOW_CLASSES)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"affinity": "sideways"}, "affinity: 'sideways': expected one of flow, source, destin"),
        ({"flow_lifetimes": {"sctp": 1}}, "flow_lifetimes: 'sctp': expected one of tcp_opening, "),
        ({"flow_lifetimes": {"tcp": "tcp_s"}}, "expected keys of `config`, not tcp_s"),
        ({"flow_lifetimes": {"tcp": True}}, "flow_lifetimes.tcp: True: expected seconds, or an"),
    ],
)
def test_mistakes_are_told_when_the_manifest_is_read(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ManifestError) as refused:
        manifest(**keys)
    assert line in str(refused.value)


@pytest.mark.parametrize("lifetime", ["udp_s * 10000", -1, "udp_s - 301"])
def test_impossible_times_are_told(lifetime: object) -> None:
    with pytest.raises(ManifestError, match="expected 0 to 604800 seconds, not"):
        held(udp=lifetime)


@pytest.mark.parametrize("name", ["firewall", "lb", "nat", "router"])
def test_plugins_say_how_long_they_hold_flows(name: str) -> None:
    known = read_manifest(ROOT / "plugins" / name / f"onvm_nf_{name}" / "onvm-nf.toml")
    lifetimes = lifetimes_ms(known, read_config(known, {}))
    assert lifetimes is not None
    by_name = dict(zip(FLOW_CLASSES, lifetimes, strict=True))
    assert by_name["tcp"] == (0 if name == "router" else 7_440_000)
    assert known.affinity == ("source" if name == "nat" else "flow")
