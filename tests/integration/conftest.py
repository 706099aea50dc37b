"""What integration tests share: drivers run in processes of their own, because DPDK starts once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import docker_address, start_docker
from python_path import python_path
from shared_data import need_data
from up_host import Host, managed

from onvm_core.launch import engine
from onvm_core.launch.launcher import Launchers
from onvm_sdk.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

Drive = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: socket paths have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="onvm-t-") as name:
        monkeypatch.setenv("ONVM_RUNTIME_DIR", name)
        yield Path(name)


@pytest.fixture
def drive(runtime_directory: Path) -> Drive:
    """Run a driver; the values of its lines."""

    def call(name: str, *arguments: object, timeout_s: float = 60) -> list[dict[str, Any]]:
        done = subprocess.run(
            [
                sys.executable,
                "-P",
                HERE / "drivers" / f"{name}.py",
                runtime_directory / "bed",
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=python_path(HERE / "drivers"),
        )
        assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}{done.stderr[-4000:]}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    return call


@pytest.fixture(scope="session")
def hostile_nf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile NF, compiled against the wire layout."""
    program = tmp_path_factory.mktemp("hostile") / "hostile_nf"
    subprocess.run(
        [
            "cc",
            "-std=gnu11",
            "-D_GNU_SOURCE",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
            ROOT / "native/include",
            HERE / "hostile_nf.c",
            "-o",
            program,
        ],
        check=True,
    )
    return program


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data."""
    return need_data()


@pytest.fixture
def host() -> Iterator[Host]:
    """A host for one test."""
    yield from managed()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Host]:
    """A host for the tests of a module."""
    yield from managed()


@pytest.fixture(scope="session")
def docker(storage: Path) -> str:
    """Address of a docker daemon of the tests' own."""
    if obstacle := start_docker(storage):
        pytest.skip(obstacle)
    return docker_address(storage)


@pytest.fixture(params=["process", "sandbox", "container", "docker"])
def launcher(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, storage: Path, host: Host
) -> str:
    """Each launcher that works on this host; for containers there is an image of the NF "hop".

    A container is podman's, or that of whatever engine is there; "docker" is one of docker.
    """
    assert storage.is_dir()
    name = str(request.param)
    if name == "docker":
        monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue("docker"))
        monkeypatch.setenv(engine.VARIABLE, "docker")
        name = "container"
    try:
        Launchers().get(name)
    except ConfigError as error:
        pytest.skip(str(error))
    if name == "container":
        host.do("nf", "image", "hop")
    return name
