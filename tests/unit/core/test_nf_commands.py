"""Commands that NFs bring along, and the check of their configurations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from commands import run_onvm

from onvm_core.cli.nf import new
from onvm_core.plugins.discovery import NfPackage, find
from onvm_core.plugins.nf_commands import check_config, run_command
from onvm_sdk.errors import ConfigError, PluginError


def onvm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_onvm(*arguments)


def test_check_names_mistakes_and_warns_of_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "fw.toml"
    file.write_text('rules = [{ action = "drop" }, { action = "accept", dst_ports = 80 }]')
    done = onvm("nf", "check", "firewall", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: fine\n")
    assert done.stderr == (
        f"warning: {file}: rules[1]: never reached: rules[0] matches all of it\n"
    )
    assert json.loads(onvm("nf", "check", "firewall", str(file), "--json").stdout)["warnings"]
    file.write_text('rules = [{ action = "jump", chain = "web" }]')
    done = onvm("nf", "check", "firewall", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {file}: rules[0].chain: 'web': expected the name of a chain: none is defined in "
        "[chains]\n"
    )


def test_check_of_a_manager_checks_its_nfs(tmp_path: Path) -> None:
    (tmp_path / "fw.toml").write_text('rules = [{ action = "drop", src = "10.0.0.1/8" }]')
    file = tmp_path / "onvm.toml"
    file.write_text(
        '[ports]\na = { uri = "null:" }\nb = { uri = "null:" }\n'
        '[nfs.firewall]\nconfig = "fw.toml"\n'
        '[chains.main]\nin = "a"\nout = "b"\nservices = ["firewall"]\n'
    )
    done = onvm("up", "--check", "-f", str(file))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: {tmp_path}/fw.toml: rules[0].src: '10.0.0.1/8': expected"
    )


def test_files_in_a_table_of_the_manager_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("10.0.0.0/8\n10.0.0.1/8\n")
    file = tmp_path / "onvm.toml"
    file.write_text(
        '[ports]\na = { uri = "null:" }\nb = { uri = "null:" }\n'
        '[nfs.firewall.config]\nset_files = ["bad.txt"]\n'
        '[chains.main]\nin = "a"\nout = "b"\nservices = ["firewall"]\n'
    )
    done = onvm("up", "--check", "-f", str(file))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/bad.txt: line 2: '10.0.0.1/8': expected")


def test_import_and_explain_pass_everything_on(tmp_path: Path) -> None:
    dump, file = tmp_path / "dump", tmp_path / "fw.toml"
    dump.write_text(
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp --dport 53 -j ACCEPT\nCOMMIT\n"
    )
    done = onvm("nf", "import", "firewall", "--iptables", str(dump))
    assert (done.returncode, done.stderr) == (0, f"{dump}: 1 of 1 rules expressed\n")
    file.write_text(done.stdout)
    done = onvm("nf", "explain", "firewall", str(file), "udp 9.9.9.9:1 > 10.0.0.1:53")
    assert done.stdout == "accept: rules[0] matches\n  rules[0]: matches: accept\n"
    assert onvm("nf", "import", "firewall", "--iptables", str(tmp_path / "no")).returncode == 2


def test_command_that_an_nf_has_not_is_named() -> None:
    with pytest.raises(ConfigError, match="expected none; it has no commands"):
        run_command(find("nat"), "import", [])


def test_fault_of_a_foreign_class_is_one_line() -> None:
    manifest = find("nat").manifest
    for target in ("onvm_nf_nowhere:Nf", "json:JSONDecoder"):
        package = NfPackage("odd", "odd", "1", target, manifest=manifest)
        with pytest.raises(PluginError, match="nf odd"):
            check_config(package, {"external": "192.0.2.1"})


@pytest.mark.parametrize(("name", "warns"), [("firewall", True), ("fireball", False)])
def test_a_new_nf_with_an_installed_name_gets_a_warning(
    name: str,
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(new, "render", lambda *_, **__: tmp_path)
    new.new(name, no_input=True)
    said = capsys.readouterr().err
    assert said.startswith("warning: the installed onvm-nf-firewall ") == warns
    assert bool(said) == warns
