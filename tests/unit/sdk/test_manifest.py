"""Manifests and configurations: every mistake is one line that names file, field and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onvm_sdk.errors import ConfigError, ManifestError
from onvm_sdk.manifest import api_matches, files_of, find_manifest, read_config, read_manifest

GOOD = """
schema = 1
name = "blocker"
sdk = ">=0.1,<1"
permissions = ["read", "drop", "originate"]
drop_reasons = ["blocked"]
[config.ports]
type = "list"
items = "int"
min = 0
max = 65535
default = [53]
[config.rules]
type = "path"
[config.mode]
type = "str"
choices = ["open", "closed"]
default = "open"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "onvm-nf.toml"
    path.write_text(text)
    return path


def test_a_manifest_and_its_defaults(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOOD))
    assert (manifest.name, manifest.service, manifest.state) == ("blocker", "blocker", "none")
    assert manifest.loaned_buffers == 64


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema: 2: expected 1"),
        ('name = "blocker"', 'name = "Bad Name"', "name: 'Bad Name'"),
        ('name = "blocker"', "", "name"),
        ('sdk = ">=0.1,<1"', 'sdk = ">=2"', "sdk: '>=2'"),
        ('sdk = ">=0.1,<1"', 'sdk = "new"', "a range like"),
        ('["blocked"]', '["a", "a"]', "drop_reasons"),
        ('["blocked"]', "3", "drop_reasons: 3"),
        (
            '"originate"]',
            '"fly"]',
            "permissions[2]: 'fly': expected one of read, rewrite, drop, originate",
        ),
        ('type = "path"', 'type = "pth"', "config.rules.type: 'pth'"),
        ("default = [53]", "default = [99999]", "config.ports.default[0]: 99999"),
        ("schema = 1", "schema = 1\ncores = -1", "cores: -1"),
        ("schema = 1", "schema = 1\nburst_size = 4096", "burst_size: 4096"),
        ("schema = 1", "schema = 1\nunknown = 1", "unknown"),
        ("schema = 1", "schema =", "expected TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configuration_gets_defaults_and_paths_of_its_folder(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOOD))
    file = tmp_path / "config.toml"
    file.write_text('rules = "r.txt"')
    expected = {"ports": [53], "rules": str(tmp_path / "r.txt"), "mode": "open"}
    assert read_config(manifest, file) == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "rules: expected a value of type path"),
        (
            {"rules": "x", "prots": 1},
            "prots: 1: expected one of ports, rules, mode; did you mean 'ports'?",
        ),
        ({"rules": 3}, "rules: 3: expected a value of type path"),
        ({"rules": "x", "ports": [1, 70000]}, "ports[1]: 70000: expected at most 65535"),
        ({"rules": "x", "ports": [True]}, "ports[0]: True: expected a value of type int"),
        ({"rules": "x", "mode": "ajar"}, "mode: 'ajar': expected one of open, closed"),
    ],
)
def test_configuration_mistakes(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    manifest = read_manifest(write(tmp_path, GOOD))
    with pytest.raises(ConfigError) as caught:
        read_config(manifest, config)
    assert str(caught.value) == said or str(caught.value).startswith(said)


def test_api_ranges() -> None:
    assert api_matches(">=0.1,<1", version="0.1")
    assert api_matches("==0.1.0", version="0.1")
    assert not api_matches(">0.1", version="0.1")
    assert api_matches("!=0.2, <= 0.10", version="0.9")


def test_manifest_is_found_without_importing(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "strange_nf"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write(package, GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_manifest("strange_nf") == package / "onvm-nf.toml"
    assert find_manifest("strange_nf.inner") == package / "onvm-nf.toml"
    with pytest.raises(ManifestError, match="expected an installed module"):
        find_manifest("not_there_at_all")


def test_lists_of_files_count_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    text = '[config.sets]\ntype = "list"\nitems = "path"\ndefault = []\ndescription = "files"\n'
    manifest = read_manifest(write(tmp_path, GOOD + text))
    file = tmp_path / "config.toml"
    file.write_text('rules = "r.txt"\nsets = ["a.txt", "/b.txt"]')
    config = read_config(manifest, file)
    assert config["sets"] == [str(tmp_path / "a.txt"), "/b.txt"]
    assert files_of(manifest, config) == {
        str(tmp_path / "r.txt"): "rules", str(tmp_path / "a.txt"): "sets", "/b.txt": "sets",
    }  # fmt: skip
    assert files_of(manifest, {"rules": "", "sets": []}) == {}
