"""`onvm nf new`, for each kind of NF: written, built, installed elsewhere, listed, tested, run.

The wheels are those of build/wheels; nothing is fetched: the fresh environment sees this one's
libraries through a .pth file, and its own packages first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("cookiecutter", reason="needs the extra 'author'")

WHEELS = Path(os.environ.get("ONVM_WHEELS", Path(__file__).parents[2] / "build" / "wheels"))
KINDS = ("columns", "packets", "kernel", "c")


class Environment:
    """A fresh virtual environment."""

    def __init__(self, folder: Path, home: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        self.home = home
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        site = folder / "lib" / version / "site-packages"
        (site / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command with this environment first on the PATH, and an empty home."""
        path = os.pathsep.join(
            [str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": path, "HOME": str(self.home), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def python(self, *arguments: str) -> str:
        """Run its Python."""
        return self.run(str(self.bin / "python"), *arguments)

    def onvm(self, *arguments: str) -> str:
        """Run its `onvm`."""
        return self.run(str(self.bin / "onvm"), *arguments)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    home = tmp_path_factory.mktemp("home")
    fresh = Environment(tmp_path_factory.mktemp("fresh") / "venv", home)
    (wheel,) = WHEELS.glob("onvm-*.whl")
    fresh.python("-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", str(wheel))
    return fresh


@pytest.fixture(scope="module", params=KINDS)
def package(
    request: pytest.FixtureRequest,
    environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a new NF, installed."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    environment.onvm(
        "nf",
        "new",
        f"my-{kind}",
        "--kind",
        kind,
        "--output-dir",
        str(folder),
        "--no-input",
        "--description",
        'Drops "things".',
        "--author",
        "A. U. Thor",
    )
    made = folder / f"onvm-nf-my-{kind}"
    environment.onvm("nf", "install", "--no-deps", "--no-build-isolation", str(made))
    return made


def name_of(package: Path) -> str:
    return package.name.removeprefix("onvm-nf-")


def test_is_listed(package: Path, environment: Environment) -> None:
    rows = {row["name"]: row for row in json.loads(environment.onvm("nf", "list", "--json"))}
    row = rows[name_of(package)]
    assert row["status"] == "ok", row
    assert row["distribution"] == package.name


def test_own_tests_pass(package: Path, environment: Environment) -> None:
    environment.python("-m", "pytest", "-p", "no:cacheprovider", str(package))


def test_manifest_says_what_was_asked_for(package: Path, environment: Environment) -> None:
    (info,) = json.loads(environment.onvm("nf", "info", name_of(package), "--json"))
    assert info["manifest"]["summary"] == 'Drops "things".'


def test_nothing_is_left_in_the_home_directory(package: Path, environment: Environment) -> None:
    assert package.is_dir()
    assert not list(environment.home.rglob("*cookiecutter*"))


def test_existing_folder_and_bad_name_are_refused(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "onvm-nf-there").mkdir()
    onvm = str(environment.bin / "onvm")
    for name in ("there", "Upper", "under_score", "double--hyphen", "1st", "../up"):
        environment.run(
            onvm, "nf", "new", name, "--output-dir", str(tmp_path), "--no-input", status=2
        )
    assert [path.name for path in tmp_path.iterdir()] == ["onvm-nf-there"]


def test_package_without_an_nf_is_refused(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text('"""Plain."""\n__version__ = "1"\n')
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["flit-core"]\nbuild-backend = "flit_core.buildapi"\n'
        '[project]\nname = "plain"\nversion = "1"\ndescription = "Plain."\n'
    )
    onvm = str(environment.bin / "onvm")
    environment.run(
        onvm, "nf", "install", "--no-deps", "--no-build-isolation", str(tmp_path), status=2
    )
    environment.run(onvm, "nf", "uninstall", "plain", status=2)


def test_uninstalled_nf_is_gone(environment: Environment, tmp_path: Path) -> None:
    environment.onvm("nf", "new", "brief", "--output-dir", str(tmp_path), "--no-input")
    environment.onvm(
        "nf", "install", "--no-deps", "--no-build-isolation", str(tmp_path / "onvm-nf-brief")
    )
    environment.onvm("nf", "uninstall", "brief")
    assert "brief" not in {
        row["name"] for row in json.loads(environment.onvm("nf", "list", "--json"))
    }
