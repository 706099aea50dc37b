"""`onvm up --check` finds what `onvm up` would find."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from commands import ONVM
from up_host import Host, install_nf

PICKY = """
from onvm_sdk import NetworkFunction
from onvm_sdk.errors import ConfigError

class Nf(NetworkFunction):
    def setup(self, ctx):
        if ctx.config["port"] == 1:
            raise ConfigError("expected another port", field="port", value=1)
        if ctx.config["port"] == 2:
            raise KeyError("a bug")

    def process_packet(self, pkt):
        return None
"""
CONFIG = """
[ports.lan]
uri = "{uri}"
[ports.wan]
uri = "null:"
[nfs.{nf}]
{more}
[chains.main]
in = "lan"
out = "wan"
services = ["{nf}"]
"""


def check(host: Host, uri: str = "null:", nf: str = "hop", more: str = "") -> tuple[int, str]:
    host.configure(CONFIG.format(uri=uri, nf=nf, more=more))
    done = host.onvm("up", "--check")
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gen:?rte=1", "ports.lan.uri: option rte: expected one of role, "),
        ("gen:?rate=abc", "ports.lan.uri: option rate: 'abc': expected an integer of at least 0"),
        ("af_packet:none0", "ports.lan.uri: 'af_packet:none0': expected the name of a network"),
        ("tap:longer-than-15-letters", "ports.lan.uri: 'longer-than-15-letters': expected an int"),
        ("pci:0000:ff:1f.7", "ports.lan.uri: 'pci:0000:ff:1f.7': expected "),
        ("pcap:none.pcap", "ports.lan.uri: "),
    ],
)
def test_ports_are_checked(host: Host, uri: str, said: str) -> None:
    status, text = check(host, uri)
    assert status == 2
    assert text.startswith(f"error: onvm.toml: {said}"), text
    assert text.count("\n") == 1


def test_nfs_are_set_up_with_their_configurations(host: Host) -> None:
    install_nf(host.site, "picky", PICKY)
    assert check(host, nf="picky") == (0, "onvm.toml: fine\n")
    status, text = check(host, nf="picky", more="config = { port = 1 }")
    assert (status, text) == (
        2,
        "error: onvm.toml: nfs.picky.config.port: 1: expected another port\n",
    )
    (host.folder / "picky.toml").write_text("port = 1\n")
    status, text = check(host, nf="picky", more='config = "picky.toml"')
    assert status == 2
    assert text.endswith("picky.toml: port: 1: expected another port\n")
    status, text = check(host, nf="picky", more="config = { port = 2 }")
    assert status == 2
    assert "NF picky cannot be set up: picky.setup raised KeyError: 'a bug' (" in text
    assert "onvm_nf_picky/__init__.py:10)" in text


def test_a_mistake_that_an_nf_finds_has_its_place(host: Host) -> None:
    install_nf(host.site, "picky", PICKY)
    told = "1: expected another port"
    (host.folder / "picky.toml").write_text("port = 1\n")
    arguments = ("run", "--in", "null:?count=9", "--out", "null:", "--chain", "picky")
    done = host.onvm(*arguments, "--nf-config", "picky=picky.toml")
    assert done.returncode == 2
    assert done.stderr == f"error: {host.folder / 'picky.toml'}: port: {told}\n"
    host.configure(CONFIG.format(uri="null:", nf="picky", more="config = { port = 1 }"))
    done = host.onvm("up")
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: onvm.toml: nfs.picky.config.port: {told}\n")


def test_a_launcher_that_cannot_work_is_told(host: Host, tmp_path: Path) -> None:
    host.configure(CONFIG.format(uri="null:", nf="hop", more='launcher = "sandbox"'))
    done = subprocess.run(
        [*ONVM, "up", "--check"],
        env={**host.environment, "PATH": str(tmp_path)},
        cwd=host.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: onvm.toml: nfs.hop.launcher: 'sandbox': expected ")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_a_relative_configuration_reaches_a_sandbox(host: Host) -> None:
    (host.folder / "hop.toml").write_text("port = 7\n")
    arguments = ("--in", "null:?count=10", "--out", "null:", "--launcher", "sandbox")
    done = host.onvm("run", *arguments, "--chain", "hop", "--nf-config", "hop=hop.toml")
    assert done.returncode == 0, done.stderr
