"""Container engines by their command lines, and images as files."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest

from onvm_core.launch.container import ContainerLauncher
from onvm_core.launch.engine import Engine, find_engine
from onvm_core.launch.image import reference, write_archive
from onvm_core.launch.image_files import is_editable
from onvm_core.launch.launcher import LaunchSpec
from onvm_core.launch.limits import Limits
from onvm_sdk.errors import ConfigError, OnvmError

# What an engine says: /bin/sh in its place, which answers as the recorded one did.
PODMAN = """\
case "$1" in
info) echo '{"host": {"cgroupControllers": ["memory"], "ociRuntime": {"name": "crun"}},
"version": {"Version": "4.9.3"}}';;
ps) echo '[{"Names": ["onvm-a-1"], "Labels": {"onvm.owner": "1-2-3"}, "Pid": 0},
{"Names": ["onvm-b-1"], "Labels": {"onvm.owner": "1-2-4"}, "Pid": 99}]';;
image) echo "Error: $5: image not known" >&2; exit 125;;
*) echo "Error: no" >&2; exit 1;;
esac
"""
DOCKER = """\
case "$1" in
info) echo '{"ServerVersion": "28.2.2", "MemoryLimit": true, "CPUSet": true,
"CpuCfsQuota": false}';;
ps) printf 'onvm-a-1\\trunning\\t1-2-3\\nonvm-b-1\\texited\\t1-2-4\\n';;
*) echo "Error response from daemon: No such container: x" >&2; exit 1;;
esac
"""
NO_DAEMON = """\
echo '{"ServerErrors": ["Cannot connect to the Docker daemon at unix:///x. Is it running?"]}'
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for engines; there are no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("ONVM_CONTAINER_ENGINE", raising=False)
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}")
    (folder / name).chmod(0o755)


def test_podman_comes_first_and_docker_is_taken_when_it_does_not_work(programs: Path) -> None:
    put(programs, "docker", DOCKER)
    assert find_engine().describe() == "docker 28.2.2"
    put(programs, "podman", PODMAN)
    assert find_engine().describe() == "podman 4.9.3, crun"
    assert find_engine("docker").describe() == "docker 28.2.2"
    put(programs, "podman", "echo 'Error: no runtime' >&2; exit 125")
    assert find_engine().program == "docker"


@pytest.mark.parametrize(
    ("scripts", "choice", "line"),
    [
        (
            {},
            "",
            "neither podman nor docker is installed; run: sudo apt-get install podman runc",
        ),
        (
            {"podman": PODMAN},
            "docker",
            "docker is not installed; run: sudo apt-get install docker.io",
        ),
        (
            {"docker": NO_DAEMON},
            "",
            "docker info: Cannot connect to the Docker daemon at unix:///x. Is it running?",
        ),
        ({"podman": "exit 1"}, "", "podman info: it failed and said nothing"),
        ({"podman": "echo no JSON"}, "", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_no_engine_says_why(
    programs: Path, scripts: dict[str, str], choice: str, line: str
) -> None:
    for name, script in scripts.items():
        put(programs, name, script)
    with pytest.raises(OnvmError) as caught:
        find_engine(choice)
    assert str(caught.value) == line
    launcher = ContainerLauncher({"engine": choice} if choice else None)
    assert launcher.obstacle() == line


def test_unknown_engine_names_where_it_was_asked_for(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"^engine: 'lxc': expected one of podman, docker$"):
        ContainerLauncher({"engine": "lxc"}).obstacle()
    monkeypatch.setenv("ONVM_CONTAINER_ENGINE", "lxd")
    with pytest.raises(ConfigError, match=r"^ONVM_CONTAINER_ENGINE: 'lxd': expected one of"):
        find_engine()
    with pytest.raises(ConfigError, match=r"^motor: expected one of engine$"):
        ContainerLauncher({"motor": "x"})


def test_engines_limits_and_what_they_cannot_enforce(programs: Path) -> None:
    put(programs, "podman", PODMAN)
    put(programs, "docker", DOCKER)
    limits = Limits((1, 3), 64, 0.5)
    podman, docker = find_engine("podman"), find_engine("docker")
    assert podman.unenforced(limits) == {
        "CPU set": "podman may not use 'cpuset' cgroups here",
        "CPU quota": "podman may not use 'cpu' cgroups here",
    }
    assert list(podman.limits(limits)) == ["--memory=64m", "--memory-swap=64m"]
    assert list(docker.limits(limits)) == [
        "--cpuset-cpus=1,3",
        "--memory=64m",
        "--memory-swap=64m",
    ]
    assert "CPU quota" in docker.unenforced(limits)


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_engines_containers(programs: Path, engine: str) -> None:
    put(programs, "podman", PODMAN)
    put(programs, "docker", DOCKER)
    found = find_engine(engine).containers()
    assert [(one.name, one.owner) for one in found] == [
        ("onvm-a-1", "1-2-3"),
        ("onvm-b-1", "1-2-4"),
    ]
    assert [one.is_running for one in found] == [engine == "docker", engine == "podman"]
    assert find_engine(engine).remove("x") == (engine == "docker")  # it is not there


def test_isolation_is_the_same_under_both() -> None:
    for program in ("podman", "docker"):
        arguments = Engine(program, {}).isolation()
        assert {
            "--pull=never",
            "--network=none",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        } <= set(arguments)


def test_missing_image_says_the_command(programs: Path, tmp_path: Path) -> None:
    put(programs, "podman", PODMAN)
    spec = LaunchSpec(
        nfs=("onvm_core.bench.bench_nf:Nf",),
        attach_path=tmp_path / "a" / "attach.sock",
        secret="s",
        log_path=tmp_path / "log",
    )
    with pytest.raises(ConfigError, match=r"run: onvm nf image onvm_core\.bench\.bench_nf:Nf$"):
        ContainerLauncher().launch(spec)
    spec = dataclasses.replace(spec, permissions=frozenset(["files"]))
    with pytest.raises(ConfigError, match="expected NFs without the permission 'files'"):
        ContainerLauncher().launch(spec)


@pytest.mark.skipif(is_editable("onvm"), reason="onvm is installed in place")
def test_image_of_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    module = tmp_path / "site" / "onvm_nf_small"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("class Nf: pass\n")
    name = reference(["onvm_nf_small:Nf"])
    assert name.startswith("localhost/onvm-nf-onvm-nf-small-nf:")
    assert name == reference(["onvm_nf_small:Nf"])
    archive = tmp_path / "image.tar"
    assert write_archive(archive, ["onvm_nf_small:Nf"]) == name
    inside: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(archive) as image:
        (manifest,) = json.load(image.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert manifest["RepoTags"] == [name]
        config = json.load(image.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        assert len(manifest["Layers"]) == len(config["rootfs"]["diff_ids"]) == 3
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=image.extractfile(layer)) as content:
                inside |= {entry.name: entry for entry in content}
    site = "opt/onvm/site"
    wanted = {
        "opt/onvm/python/bin/python3",
        f"{site}/onvm_sdk/runtime.py",
        f"{site}/onvm_sdk/lib/libonvm_nf.so",
        f"{site}/onvm_nf_small/__init__.py",
        "opt/onvm/lib/libc.so.6",
        "run/onvm",
        "tmp",
    }
    assert wanted <= inside.keys()
    assert not [one for one in inside if one.startswith((f"{site}/onvm_core", f"{site}/pip"))]
    assert all(
        entry.uid == 0 and not entry.mode & 0o022
        for key, entry in inside.items()
        if key not in ("tmp", "var/run")
    )
    compiled = [one for one in inside if one.startswith(f"{site}/onvm_nf_small/__pycache__/")]
    assert len(compiled) == 1

    (module / "__init__.py").write_text("class Nf: other = 1\n")
    assert reference(["onvm_nf_small:Nf"]) != name
    with pytest.raises(ConfigError, match=r"^NF: 'nope': expected an installed NF"):
        reference(["nope"])
