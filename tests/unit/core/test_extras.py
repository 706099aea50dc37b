"""A missing extra disables what needs it, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = (
    "puresasl",
    "cryptography",
    "numba",
    "llvmlite",
    "cookiecutter",
    "scapy",
    "pyroute2",
    "uvloop",
    "MLRsearch",
    "hdrh",
)
WITHOUT = f"""
import sys
for name in {EXTRAS}:
    sys.modules[name] = None
sys.argv[0] = "onvm"
import runpy
runpy.run_module("onvm_core.cli", run_name="__main__", alter_sys=False)
"""


def onvm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("cluster", "--help"),
        ("cluster", "join", "--help"),
        ("bench", "--help"),
        ("bench", "hop", "--help"),
        ("nf", "--help"),
        ("nf", "list"),
        ("doctor", "--help"),
        ("version",),
    ],
)
def test_commands_work_without_extras(arguments: tuple[str, ...]) -> None:
    done = onvm(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_command_that_needs_an_extra_names_it() -> None:
    done = onvm("nf", "new", "x", "--no-input", "--output-dir", "/nonexistent")
    assert done.returncode == 2
    assert "cookiecutter" in done.stderr or "expected" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_suite_that_needs_an_extra_names_it() -> None:
    done = onvm("bench", "ndr")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: ndr: expected the package MLRsearch; run: pip install 'onvm[bench]'\n"
    )


def test_credentials_need_sasl() -> None:
    code = (
        "import sys; sys.modules['puresasl'] = None\n"
        "from onvm_core.cluster.credentials import Credentials\n"
        "from onvm_core.cluster.tree.ensemble import Ensemble\n"
        "from onvm_sdk.errors import PluginError\n"
        "try: Ensemble('127.0.0.1:1', Credentials('u', 'p'))\n"
        "except PluginError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "onvm cluster: expected the package pure-sasl; run: pip install 'onvm[cluster]'\n"
    )
