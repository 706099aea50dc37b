"""What a plain `pip install onvm-nf-firewall` gives: commands, completion, the man page.

The environment holds the wheels of build/wheels and exactly what they require without extras;
nothing is fetched, because its libraries are links to those of this environment.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

WHEELS = Path(os.environ.get("ONVM_WHEELS", Path(__file__).parents[2] / "build" / "wheels"))


def _required(name: str, seen: set[str]) -> set[str]:
    """The distributions that `name` needs without extras, and those that these need."""
    for line in importlib.metadata.requires(name) or ():
        need = Requirement(line)
        applies = need.marker is None or need.marker.evaluate({"extra": ""})
        if applies and need.name.lower() not in seen:
            seen.add(need.name.lower())
            _required(need.name, seen)
    return seen


class Environment:
    """A virtual environment with the wheels of the core and the firewall, and a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "env"
        self.home = folder / "home"
        self.home.mkdir()
        venv.create(self.folder, with_pip=False, symlinks=True)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        site = self.folder / "lib" / version / "site-packages"
        for name in _required("onvm", set()):
            for file in importlib.metadata.files(name) or ():
                top, place = file.parts[0], site / file.parts[0]
                if top not in ("..", "__pycache__") and not place.exists():
                    place.symlink_to(
                        Path(str(file.locate())).parents[len(file.parts) - 2]
                        if len(file.parts) > 1
                        else Path(str(file.locate()))
                    )
        wheels = [next(WHEELS.glob(f"{name}-[0-9]*.whl")) for name in ("onvm", "onvm_nf_firewall")]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "--python",
                self.folder / "bin/python",
                "install",
                "-q",
                "--no-deps",
                "--no-index",
                *wheels,
            ],
            check=True,
        )

    def run(self, *command: str | Path, status: int = 0, **variables: str) -> str:
        """Run a command with this environment alone."""
        done = subprocess.run(
            command,
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "HOME": str(self.home),
                "ONVM_RUNTIME_DIR": str(self.home),
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def bash_completions(self, line: str) -> list[str]:
        """The words that bash offers for the last word of a line."""
        script = self.folder / "share/bash-completion/completions/onvm"
        code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))"
        if line.endswith(" "):
            code += "+1; COMP_WORDS+=('')"
        return self.run(
            "bash", "-c", f'{code}; _onvm onvm; printf "%s\\n" "${{COMPREPLY[@]}}"'
        ).split()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def manager(environment: Environment) -> Iterator[Environment]:
    file = environment.home / "onvm.toml"
    file.write_text(
        '[ports.lan]\nuri = "null:"\n[ports.wan]\nuri = "null:"\n[nfs.firewall]\n'
        '[chains.guests]\nin = "lan"\nout = "wan"\nservices = ["firewall"]\n'
    )
    environment.run("onvm", "up", "-f", file, "-d")
    yield environment
    environment.run("onvm", "down")


@pytest.mark.parametrize(
    "command",
    ["bench --help", "cluster --help", "cluster status --help", "nf list", "nf info firewall"],
)
def test_commands_need_no_extra(environment: Environment, command: str) -> None:
    assert "puresasl" not in environment.run("onvm", *command.split())


def test_a_command_that_needs_an_extra_names_it(environment: Environment) -> None:
    said = environment.run("onvm", "nf", "new", "x", "--no-input", status=2)
    assert "onvm[author]" in said
    assert said.count("\n") == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_nfs(environment: Environment) -> None:
    assert environment.bash_completions("onvm clu") == ["cluster"]
    assert environment.bash_completions("onvm cluster ke") == ["keys"]
    assert environment.bash_completions("onvm nf info fi") == ["firewall"]
    assert environment.bash_completions("onvm run --chain firewall,fi") == ["firewall,firewall"]
    assert "--duration" in environment.bash_completions("onvm run --du")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_what_a_manager_has(manager: Environment) -> None:
    assert manager.bash_completions("onvm chain show gu") == ["guests"]
    assert manager.bash_completions("onvm capture wa") == ["wan"]
    assert manager.bash_completions("onvm nf stop firewall-") == ["firewall-1"]
    assert manager.bash_completions("onvm status --name ma") == ["main"]
    assert manager.bash_completions("onvm chain show --name other gu") == []


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes(environment: Environment) -> None:
    script = environment.folder / "share/fish/vendor_completions.d/onvm.fish"
    said = environment.run("fish", "-c", f"source {script}; complete -C 'onvm nf info fi'")
    assert said.split()[0] == "firewall"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(environment: Environment) -> None:
    script = environment.folder / "share/zsh/site-functions/_onvm"
    code = f"words=(onvm nf info fi); CURRENT=4; _arguments() {{ print -r -- $@ }}; source {script}"
    assert '"firewall"' in environment.run("zsh", "-f", "-c", code)


def test_the_man_page_has_every_command(environment: Environment) -> None:
    page = (environment.folder / "share/man/man1/onvm.1").read_text()
    commands = re.findall(r"^  (\w+) ", environment.run("onvm", "--help"), re.M)
    assert len(commands) > 10
    for command in commands:
        assert f'.SS "onvm {command} ' in page
    if shutil.which("man"):
        said = environment.run(
            "man", "--warnings", "-l", environment.folder / "share/man/man1/onvm.1"
        )
        assert "warning" not in said
