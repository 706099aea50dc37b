"""``onvm.toml``: what is right is read, and each mistake is one line that names its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onvm_core.manager.capture_port import PCAP
from onvm_core.manager.config.extensions import load_extensions
from onvm_core.manager.config.onvm_toml import Config, parse_config
from onvm_core.manager.config.toml_writer import format_toml
from onvm_core.manager.ports import NULL
from onvm_core.plugins import NfPackage, load_plugins
from onvm_core.scaling.policy import UtilisationPolicy
from onvm_sdk.errors import ConfigError
from onvm_sdk.manifest import read_manifest

MANIFEST = """
schema = 1
name = "NAME"
service = "NAME"
summary = "for tests"
sdk = ">=0.1,<1"
state = "none"
permissions = ["read"]
[config.port]
type = "int"
default = 53
min = 0
max = 65535
description = "a port"
"""
GOOD = """
[ports.lan]
uri = "null:"
[ports.wan]
uri = "pcap:x"
[nfs.firewall]
[nfs.nat]
[chains.main]
in = "lan"
out = "wan"
services = ["firewall", "nat"]
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[NfPackage]:
    made = []
    for name in ("firewall", "nat"):
        path = tmp_path_factory.mktemp(name) / "onvm-nf.toml"
        path.write_text(MANIFEST.replace("NAME", name))
        manifest = read_manifest(path)
        made.append(NfPackage(name, f"onvm-nf-{name}", "0.1", "x:Y", name, manifest, path))
    return made


def read(text: str | bytes, packages: list[NfPackage]) -> Config:
    data = text.encode() if isinstance(text, str) else text
    return parse_config(data, Path("f.toml"), {"null": NULL, "pcap": PCAP}, packages)


def test_good_file_is_read(packages: list[NfPackage]) -> None:
    config = read(GOOD + '[[fused]]\nnfs = ["firewall", "nat"]\ninstances = 2\n', packages)
    assert config.direction("lan") == "in"
    assert config.direction("wan") == "out"
    assert [group.instances for group in config.groups()] == [
        ("firewall-1", "nat-1"),
        ("firewall-2", "nat-2"),
    ]


def test_empty_file_is_a_manager_without_anything(packages: list[NfPackage]) -> None:
    assert read("", packages) == Config()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = ", "f.toml: expected TOML: Invalid value (at end of document)"),
        ("\n\nx y", "f.toml: expected TOML: Expected '=' after a key in a key/value pair (at "),
        (b"\n\xff", "f.toml: expected UTF-8 text (line 2)"),
        ("port = 1", "f.toml: port: expected one of chains, dataplane, exporters, "),
        ("zzz = 1", "f.toml: zzz: expected one of chains, dataplane, exporters,"),
        ("[dataplane]\nworker = 2", "f.toml: dataplane.worker: expected one of buffer_size, "),
        ("[dataplane]\nworkers = 0", "f.toml: dataplane.workers: 0: expected `int` >= 1"),
        ('[dataplane]\nworkers = "2"', "f.toml: dataplane.workers: '2': expected `int`, got `str`"),
        ('[dataplane]\nidle = "lazy"', "f.toml: dataplane.idle: 'lazy': expected one of adaptive"),
        (
            "[dataplane]\nring_length = 1000",
            "f.toml: dataplane.ring_length: 1000: expected a",
        ),
        ("[dataplane]\ncpus = [0, 0]", "f.toml: dataplane.cpus: [0, 0]: expected one CPU for each"),
        ("[dataplane]\ncpus = [99999]", "f.toml: dataplane.cpus: 99999: expected CPUs that may be"),
        ("[dataplane]\nlow_percent = 90", "f.toml: dataplane.low_percent: 90: expected less than"),
        (
            '[manager]\nplacement = "luck"',
            "f.toml: manager.placement: 'luck': expected one of balanced",
        ),
        ("dataplane = 3", "f.toml: dataplane: 3: expected `object`, got `int`"),
        ("ports = 3", "f.toml: ports: 3: expected `object`, got `int`"),
        ('[ports.a]\nurl = "null:"', "f.toml: ports.a.url: expected one of addresses, "),
        ("[ports.a]", "f.toml: ports.a.uri: expected a value"),
        ("[ports.a]\nuri = 3", "f.toml: ports.a.uri: 3: expected `str`, got `int`"),
        ('[ports.a]\nuri = "null"', "f.toml: ports.a.uri: 'null': expected SCHEME:TARGET"),
        ('[ports.a]\nuri = "nul:"', "f.toml: ports.a.uri: 'nul': expected one of null, pcap; did"),
        ('[ports."a b"]\nuri = "null:"', "f.toml: ports: 'a b': expected a name of 1 to 26"),
        ("[nfs.firewal]", "f.toml: nfs.firewal.plugin: 'firewal': expected an installed NF"),
        (
            '[nfs.nat]\nfragments = "sideways"',
            "f.toml: nfs.nat.fragments: 'sideways': expected one of",
        ),
        ("[nfs.nat]\ninstances = -1", "f.toml: nfs.nat.instances: -1: expected `int` >= 0"),
        ('[nfs.nat]\nconfig = "none"', "f.toml: nfs.nat.config: 'none': expected a file that"),
        ("[nfs.nat.config]\nprt = 1", "f.toml: nfs.nat.config.prt: 1: expected one of "),
        ("[nfs.nat.config]\nport = 70000", "f.toml: nfs.nat.config.port: 70000: "),
        (
            '[nfs.nat]\nlauncher = "boat"',
            "f.toml: nfs.nat.launcher: 'boat': expected one of process",
        ),
        (
            '[nfs.nat]\naffinity = "sideways"',
            "f.toml: nfs.nat.affinity: 'sideways': expected one of ",
        ),
        (
            '[nfs.a]\nplugin = "nat"\naffinity = "flow"\n[nfs.b]\nplugin = "nat"',
            "f.toml: nfs.b.affinity: expected flow, as in nfs.a: both are instances of service nat",
        ),
        (
            '[[fused]]\nnfs = ["nat"]\nlauncher = "boat"',
            "f.toml: fused[0].launcher: 'boat': expected one of process",
        ),
        (
            '[nfs.nat]\nlauncher = "process"\n[[fused]]\nnfs = ["nat"]',
            "f.toml: nfs.nat.launcher: 'process': expected none: it is fused, set fused[0].l",
        ),
        ("[[fused]]\nnfs = []", "f.toml: fused[0].nfs: []: expected `array` of length >= 1"),
        ('[[fused]]\nnfs = ["natt"]', "f.toml: fused[0].nfs: 'natt': expected a defined name"),
        (
            GOOD.replace('"wan"\n', '"wann"\n'),
            "f.toml: chains.main.out: 'wann': expected one of lan, wan; did you mean 'wan'?",
        ),
        (
            GOOD.replace('"nat"]', '"natt"]'),
            "f.toml: chains.main.services: 'natt': expected a service",
        ),
        (
            GOOD + '[chains.b]\nin = "wan"\nout = "lan"\n',
            "f.toml: chains.b.in: 'wan': expected a port that is not chain main's",
        ),
        (
            GOOD + '[nfs.nat2]\nplugin = "nat"\n[[fused]]\nnfs = ["nat", "nat2"]\n',
            "f.toml: fused[0].nfs: 'nat2': expected each plugin once",
        ),
        (
            GOOD + "[scale.nat]\nmin = 5\nmax = 2\n",
            "f.toml: scale.nat.min: 5: expected at most max (2)",
        ),
        (GOOD + "[scale.nat]\nmin = 0\n", "f.toml: scale.nat.min: 0: expected `int` >= 1"),
        (GOOD + "[scale.nat]\ntarget = 1.5\n", "f.toml: scale.nat.target: 1.5: expected `float`"),
        (GOOD + "[scale.nat]\ntarget = nan\n", "f.toml: scale.nat.target: nan: expected `float`"),
        (GOOD + "[scale.nat]\nmaxx = 1\n", "f.toml: scale.nat.maxx: expected one of cooldown_s, "),
        (GOOD + "[scale.natt]\n", "f.toml: scale: 'natt': expected a service that an NF of this"),
        (
            GOOD + '[[fused]]\nnfs = ["firewall", "nat"]\n[scale.nat]\n[scale.firewall]\n',
            "f.toml: scale: 'nat': expected only one of nat and firewall: they are fused",
        ),
        (
            "[exporters.a]\ninterval_s = 0",
            "f.toml: exporters.a.interval_s: 0: expected `float` >= 0.1",
        ),
        ("[faults]\nhang_ms = -1", "f.toml: faults.hang_ms: -1: expected `int` >= 0"),
        ("[faults]\nhang = 1", "f.toml: faults.hang: expected one of hang_ms, ready_s; did "),
        (
            GOOD.replace('in = "lan"', 'in = "lan"\non_failure = "retry"'),
            "f.toml: chains.main.on_failure: 'retry': expected one of bypass, drop, wait",
        ),
        ("[chains.a]\nin = 1\nout = 'b'", "f.toml: chains.a.in: 1: expected `str`, got `int`"),
        ("a = " + "[" * 5000, "f.toml: expected TOML with fewer levels"),
    ],
)
def test_mistake_is_one_line(text: str | bytes, line: str, packages: list[NfPackage]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, packages)
    assert str(caught.value).startswith(line), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[scale.nat]\npolicy = "utilization"',
            "f.toml: scale.nat.policy: 'utilization': "
            "expected one of utilisation; did you mean 'utilisation'?",
        ),
        (
            "[scale.nat.options]\nspeed = 3",
            "f.toml: scale.nat.options.speed: 3: expected no options for this policy",
        ),
        (
            "[exporters.jsonn]",
            "f.toml: exporters.jsonn.kind: 'jsonn': "
            "expected one of jsonl, otlp, prometheus, prometheus-http; did you mean 'jsonl'?",
        ),
        (
            '[exporters.a]\nkind = "jsonl"',
            "f.toml: exporters.a.options.file: expected the path of a file",
        ),
    ],
)
def test_mistake_about_a_plugin_s_thing_is_one_line(
    text: str, line: str, packages: list[NfPackage]
) -> None:
    config = read(GOOD + text, packages)
    with pytest.raises(ConfigError) as caught:
        load_extensions(config, Path("f.toml"), load_plugins())
    assert str(caught.value) == line


def test_what_a_file_names_is_made(packages: list[NfPackage], tmp_path: Path) -> None:
    text = GOOD + '[scale.nat]\n[exporters.x]\nkind = "jsonl"\noptions = { file = "o" }\n'
    made = load_extensions(read(text, packages), tmp_path / "f.toml", load_plugins())
    assert isinstance(made.policies["nat"], UtilisationPolicy)
    assert (made.exporters["x"].kind, made.exporters["x"].interval_s) == ("jsonl", 10.0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["uri", "in", "out", "services", "plugin", "config", "nfs", "workers", "lan", "nat"]
            )
            | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
SECTIONS = st.dictionaries(
    st.sampled_from(["dataplane", "ports", "nfs", "fused", "chains", "other"]), VALUES, max_size=4
)


def without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value if item is not None]
    return value


@given(SECTIONS.map(without_none))
def test_any_table_is_read_or_refused_in_one_line(
    packages: list[NfPackage], tree: dict[str, Any]
) -> None:
    try:
        read(format_toml(tree), packages)
    except ConfigError as error:
        assert str(error).startswith("f.toml: ")
        assert "\n" not in str(error)


@given(st.binary(max_size=200))
@example(b'"\\ud800" = 1')
def test_any_bytes_are_read_or_refused(packages: list[NfPackage], data: bytes) -> None:
    try:
        read(data, packages)
    except ConfigError as error:
        assert "\n" not in str(error)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4).map(without_none))
def test_written_toml_reads_back(table: dict[str, Any]) -> None:
    assert msgspec.json.encode(tomllib.loads(format_toml(table))) == msgspec.json.encode(table)


def test_an_installed_nf_that_a_chain_names_is_implied(packages: list[NfPackage]) -> None:
    config = read(GOOD.replace("[nfs.nat]", ""), packages)
    assert [group.names for group in config.groups()].count(("nat",)) == 1
