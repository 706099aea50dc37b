"""The command line's manners: quick help, one line for a mistake, a traceback for a bug."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onvm_core.cli import app, outcome
from onvm_core.plugins import CliCommand, PluginManager, hookimpl
from onvm_sdk.errors import ConfigError

ONVM = str(Path(sys.executable).parent / "onvm")


def onvm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ONVM, *arguments], capture_output=True, text=True, check=False)


def run_with(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> int:
    """Run a command line whose only command is `action`."""
    manager = PluginManager()

    class Plugin:
        @staticmethod
        @hookimpl
        def onvm_cli_commands() -> list[CliCommand]:
            return [CliCommand("act", "Act.", action)]

    manager.register(Plugin, "test")
    monkeypatch.setattr(app, "plugins_of_process", lambda: manager)
    monkeypatch.setattr(sys, "argv", ["onvm", "act"])
    with pytest.raises(SystemExit) as exit_:
        app.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_users_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mistake = ConfigError("expected a number\nabove 0", file="onvm.toml", field="rate", value=-1)
    assert run_with(monkeypatch, raising(mistake)) == 2
    assert capsys.readouterr().err == "error: onvm.toml: rate: -1: expected a number above 0\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "/s/a"), "'/s/a': expected a usable path"),
        (OSError(36, "File name too long", "aaa"), "'aaa': expected a usable path"),
        (OSError(28, "No space left on device"), "expected room for what is written"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    text: str,
) -> None:
    monkeypatch.setattr(outcome, "_leave_stdout", lambda: None)  # pytest's stdout stays open
    assert run_with(monkeypatch, raising(error)) == 2
    assert capsys.readouterr().err == f"error: {text}: {error.strerror}\n"


def test_system_error_without_a_path_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        run_with(monkeypatch, raising(OSError(22, "Invalid argument")))


def test_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, lambda: print(1 // 0))


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 0), (SystemExit(3), 3)]
)
def test_exit_status(monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int) -> None:
    monkeypatch.setattr(outcome, "_close_pipe", lambda: 0)  # pytest's stdout has to stay open
    assert run_with(monkeypatch, raising(error)) == status


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], "error: onvm: 'nope': expected a command; see: onvm --help\n"),
        (
            ["statsu"],
            "error: onvm: 'statsu': expected a command; did you mean 'status'?; see: onvm --help\n",
        ),
        (
            ["nf", "list", "--nope"],
            "error: --nope: expected an option of onvm nf list; see: onvm nf list --help\n",
        ),
        (
            ["status", "--nam", "x"],
            "error: --nam: expected an option of onvm status; did you mean --name?; see: ",
        ),
        (["status", "x"], "error: onvm status: 'x': expected no further argument; see: "),
        (["run"], "error: --in: expected URI; see: onvm run --help\n"),
        (["chain", "add"], "error: CHAIN: expected one more argument; see: "),
        (["bench", "--runs"], "error: --runs: expected a value; see: "),
        (["bench", "--runs", "x"], "error: --runs: 'x': expected an integer; see: "),
        (["bench", "--runs=0"], "error: --runs: '0': expected at least 1; see: "),
        (["top", "--interval", "0.01"], "error: --interval: '0.01': expected 0.1 to 3600; see: "),
        (
            ["capture", "p", "-o", "f", "--direction", "up"],
            "error: --direction: 'up': expected one of in, out, both; see: onvm capture --help\n",
        ),
        (
            ["run", "--in", "memif:/nowhere/a", "--out", "null:", "--chain", ""],
            "error: --in: '/nowhere/a': expected a socket in an existing folder\n",
        ),
        (
            ["run", "--in", "memif:/a,b", "--out", "null:", "--chain", ""],
            "error: --in: '/a,b': expected a path without commas\n",
        ),
        (
            ["run", "--in", f"memif:/{'x' * 120}", "--out", "null:", "--chain", ""],
            f"error: --in: '/{'x' * 120}': expected fewer than 108 bytes\n",
        ),
        (["nf", "info", "nope"], "error: nf info: 'nope': expected an installed NF: one of "),
    ],
)
def test_wrong_command_line_is_one_line(arguments: list[str], line: str) -> None:
    done = onvm(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("command", [(), ("nf",), ("cluster", "chain")])
def test_a_group_by_itself_prints_its_help(command: tuple[str, ...]) -> None:
    done = onvm(*command)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith(f"Usage: {' '.join(('onvm', *command))} ")
    assert done.stdout == onvm(*command, "--help").stdout


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["nf list", "--help", "version -o json"])
def test_streams_that_are_closed_or_full(command: str) -> None:
    done = shell(f"{ONVM} {command} >&-")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"{ONVM} {command} >&- 2>&- <&-")
    assert done.returncode == 0
    done = shell(f"{ONVM} {command} >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: expected room for what is written: No space left on device\n"


def test_closed_pipe_is_silent() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{ONVM} doctor --json | true"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from onvm_core.cli.app import _run; _run(['--help']);"
        "heavy = ('onvm_core.cli.nf.app', 'pydantic');"
        "sys.exit(any(name.startswith(heavy) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-P", "-c", code], stdout=subprocess.DEVNULL, check=True)


def test_version_is_an_option_too() -> None:
    assert onvm("--version").stdout == onvm("version").stdout != ""


@pytest.mark.parametrize("command", ["doctor", "version", "nf list"])
def test_json_is_json(command: str) -> None:
    done = onvm(*command.split(), "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def test_doctor_text_and_json_say_the_same() -> None:
    findings = json.loads(onvm("doctor", "--json").stdout)
    text = onvm("doctor").stdout
    for finding in findings:
        assert finding["subject"] in text
        if finding["health"] == "lack" and finding["fix"]:
            assert finding["fix"] in text
