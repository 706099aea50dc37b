"""`onvm nf new`, for each kind of NF: written, built, installed elsewhere, listed, tested, run.

The wheels are those of build/wheels; nothing is fetched: the fresh environment sees this one's
libraries through a .pth file, and its own packages first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

pytest.importorskip("cookiecutter", reason="needs the extra 'author'")

WHEELS = Path(os.environ.get("ONVM_WHEELS", Path(__file__).parents[2] / "build" / "wheels"))
KINDS = ("columns", "packets", "kernel", "c")
DESCRIPTION = """Drop "things", \\ and 'others'\""""


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
        return done.stdout if status == 0 else done.stdout + done.stderr

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
        DESCRIPTION,
        "--author",
        'A. "U." Thor',
        "--license",
        "MIT",
        "--ci",
        "both",
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


def test_nf_test_runs_them_by_its_name(package: Path, environment: Environment) -> None:
    if name_of(package) == "my-packets":
        said = environment.onvm("nf", "test", name_of(package), "--", "-v")
        assert "test_port_comes_from_the_configuration" in said
        assert "test_survives_short_damaged_and_random_packets" in said


def test_manifest_says_what_was_asked_for(package: Path, environment: Environment) -> None:
    (info,) = json.loads(environment.onvm("nf", "info", name_of(package), "--json"))
    assert info["manifest"]["summary"] == DESCRIPTION


def test_its_types_are_strict(package: Path, environment: Environment) -> None:
    if name_of(package) == "my-packets":  # one says it for all: mypy takes seconds
        command = (str(environment.bin / "python"), "-m", "mypy", "--config-file")
        environment.run(*command, str(package / "pyproject.toml"), str(package), "--no-incremental")


def test_files_for_its_publication_are_sound(package: Path) -> None:
    yaml = pytest.importorskip("yaml")
    release = yaml.safe_load((package / ".github" / "workflows" / "release.yml").read_text())
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    test = yaml.safe_load((package / ".github" / "workflows" / "test.yml").read_text())
    assert {"run": "python -m mypy"} in test["jobs"]["test"]["steps"]
    publish = yaml.safe_load((package / ".gitlab-ci.yml").read_text())["publish"]
    assert publish["id_tokens"] == {"PYPI_ID_TOKEN": {"aud": "pypi"}}
    assert 'A. "U." Thor' in (package / "LICENSE").read_text()
    assert tomllib.loads((package / "pyproject.toml").read_text())["project"]["license"] == "MIT"
    for name in ("CHANGELOG.md", "docs/index.md", ".gitignore"):
        assert (package / name).is_file()


def test_nothing_is_left_in_the_home_directory(package: Path, environment: Environment) -> None:
    assert package.is_dir()
    assert not list(environment.home.rglob("*cookiecutter*"))


def test_existing_folder_and_bad_name_are_refused(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "onvm-nf-there").mkdir()
    onvm = str(environment.bin / "onvm")
    for name in ("there", "Upper", "under_score", "double--hyphen", "1st", "../up", "a" * 27):
        environment.run(
            onvm, "nf", "new", name, "--output-dir", str(tmp_path), "--no-input", status=2
        )
    assert [path.name for path in tmp_path.iterdir()] == ["onvm-nf-there"]


def test_a_folder_that_cannot_be_and_a_text_of_two_lines_are_refused(
    environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    onvm = str(environment.bin / "onvm")
    for option, value in (("--output-dir", str(tmp_path / "file")), ("--author", "A\nB")):
        command = (onvm, "nf", "new", "brief", "--no-input", option, value)
        done = environment.run(*command, status=2)
        assert done.startswith(f"error: {option}: "), done
        assert done.count("\n") == 1


def test_the_second_package_with_a_name_is_refused(
    environment: Environment, package: Path, tmp_path: Path
) -> None:
    """The one that is installed goes on; the upgrade of it is none."""
    name = name_of(package)
    shutil.copytree(package, tmp_path / "twin")
    project = tmp_path / "twin" / ("meson.build" if name == "my-c" else "pyproject.toml")
    for file in {project, tmp_path / "twin" / "pyproject.toml"}:
        file.write_text(file.read_text().replace(package.name, "twin"))
    onvm = str(environment.bin / "onvm")
    install = (onvm, "nf", "install", "--no-deps", "--no-build-isolation")
    for option in ((), ("--editable",)):
        said = environment.run(*install, *option, str(tmp_path / "twin"), status=2)
        assert f"nf install: '{name}': expected a name that is free: {package.name} 0.1.0" in said
    rows = json.loads(environment.onvm("nf", "list", "--json"))
    assert [row["status"] for row in rows if row["name"] == name] == ["ok"]


def test_an_upgrade_says_what_is_new(environment: Environment, tmp_path: Path) -> None:
    environment.onvm("nf", "new", "grower", "--output-dir", str(tmp_path), "--no-input")
    folder, links = tmp_path / "onvm-nf-grower", tmp_path / "links"
    offline = ("--no-deps", "--no-index", "--find-links", str(links))
    wheel = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(links))
    environment.python(*wheel, str(folder))
    said = environment.onvm("nf", "install", *offline, "onvm-nf-grower")
    assert "permissions: rewrite, drop\n  resources: 1 core, 256 MiB" in said
    for file, old, new in (
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0rc1"'),
        ("onvm_nf_grower/onvm-nf.toml", '"drop"]', '"drop", "originate"]'),
    ):
        path = folder / file
        path.write_text(path.read_text().replace(old, new))
    environment.python(*wheel, str(folder))
    assert "0.1.0" in environment.onvm("nf", "install", *offline, "onvm-nf-grower")
    assert "0.1.0" in environment.onvm("nf", "upgrade", *offline, "grower")
    said = environment.onvm("nf", "upgrade", "--pre", *offline, "grower")
    assert "installed grower (onvm-nf-grower 0.2.0rc1)" in said
    assert "permissions: rewrite, drop, originate (was: rewrite, drop)" in said


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
