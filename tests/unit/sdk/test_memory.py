"""The memory that follows from a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from onvm_sdk.errors import ConfigError, ManifestError
from onvm_sdk.manifest import Manifest, parse_manifest, read_config
from onvm_sdk.memory import check_memory, needed_mib, sized

CONFIG = {
    "flows": {"type": "int", "default": 1 << 20},
    "kind": {"type": "str", "default": "plain"},
    "outside": {"type": "any", "default": "192.0.2.1"},
}


def manifest(expression: str) -> Manifest:
    data = {"schema": 1, "name": "x", "sdk": ">=0", "memory_mib": 100, "config": CONFIG}
    return parse_manifest({**data, "memory_bytes": expression}, "onvm-nf.toml")


@pytest.mark.parametrize(
    ("expression", "values", "mib"),
    [
        ("", {}, 100),
        ("flows * 10", {}, 110),
        ("flows * 10", {"flows": 1}, 101),
        ('flows * (10 + (kind == "rich") * 5)', {"kind": "rich"}, 115),
        ("min(flows, 65536 * count(outside)) * 16", {"outside": ["a", "b"]}, 102),
        ("max(flows, 1) / 4 - 0", {}, 101),
        ("\n(1048576 *\n2)", {}, 102),
    ],
)
def test_memory_is_computed(expression: str, values: dict[str, Any], mib: int) -> None:
    known = manifest(expression)
    config = read_config(known, values)
    assert needed_mib(known, config) == mib
    assert sized(known, config).memory_mib == mib


def test_manifest_names_only_its_keys() -> None:
    with pytest.raises(ManifestError, match="expected keys of `config`, not flow"):
        manifest("flow * 2")


@pytest.mark.parametrize(
    "expression", ["flows * kind", "1 +", "flows / 0", "[1][0]", "open(kind)", "(lambda: 1)()"]
)
def test_mistakes_of_an_expression_are_told(expression: str) -> None:
    known = manifest("").replace(memory_bytes=expression)
    with pytest.raises(ManifestError, match=r"memory_bytes: .* expected an expression over keys"):
        needed_mib(known, read_config(known, {}))


def test_more_than_the_host_has_is_refused_with_the_key() -> None:
    known = manifest("flows * 1024")
    check_memory(known, read_config(known, {"flows": 1024}), 101)
    with pytest.raises(ConfigError) as error:
        check_memory(known, read_config(known, {}), 1000, "x.toml")
    assert str(error.value) == (
        "x.toml: flows: 1048576: expected less: x would need 1124 MiB of memory, this host has 1000"
    )
