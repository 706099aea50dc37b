"""Engines of containers for tests: their images, containers and locks are in a folder of ours.

Run as a program it waits for the end of its standard input, which no signal can prevent, and then
ends and removes all that is in the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 20.0


def container_storage() -> Iterator[Path]:
    """Let podman keep images and containers in a folder that goes with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="onvm-pod-"))
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/g"\nrunroot = "{folder}/r"\n'
        f'rootless_storage_path = "{folder}/g"\n'
    )
    (folder / "containers.conf").write_text('[engine]\nlock_type = "file"\n')
    cleaner = subprocess.Popen(
        [sys.executable, "-P", __file__, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    environment = podman_environment(folder)
    os.environ.update(environment)
    try:
        yield folder
    finally:
        for name in environment:
            del os.environ[name]
        cleaner.communicate()


def podman_environment(folder: Path) -> dict[str, str]:
    """What keeps podman in the folder: its locks, too, which would stay in shared memory.

    A machine that has a file of its own for the engine keeps that one.
    """
    found = {"CONTAINERS_STORAGE_CONF": str(folder / "storage.conf")}
    if not Path("/etc/containers/containers.conf").exists():
        found["CONTAINERS_CONF"] = str(folder / "containers.conf")
    return found


def docker_address(folder: Path) -> str:
    """Of the daemon in the folder, as ``DOCKER_HOST`` names it."""
    return f"unix://{folder}/docker/socket"


def start_docker(folder: Path) -> str:
    """Start a daemon that changes nothing of this host's network; why it does not work, or ""."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        return "docker's daemon is not installed"
    if os.geteuid() != 0:
        return "docker's daemon needs root"
    home = folder / "docker"
    home.mkdir()
    with (home / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={home}/data",
                f"--exec-root={home}/exec",
                f"--pidfile={home}/pid",
                f"--host={docker_address(folder)}",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-masq=false",
                "--ip-forward=false",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while daemon.poll() is None and time.monotonic() < deadline:
        if not ask_docker(folder, "version"):
            time.sleep(0.1)
            continue
        return ""
    lines = (home / "log").read_text(errors="replace").strip().splitlines()
    return f"docker's daemon does not start: {lines[-1] if lines else 'it says nothing'}"


def ask_docker(folder: Path, *arguments: str) -> str:
    """What a command says; "" when it fails."""
    done = subprocess.run(
        ["docker", f"--host={docker_address(folder)}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def stop_docker(folder: Path) -> None:
    """End the containers of the folder's daemon, and the daemon."""
    path = folder / "docker" / "pid"
    if not path.exists():
        return
    if names := ask_docker(folder, "ps", "--all", "--quiet").split():
        ask_docker(folder, "rm", "--force", *names)
    daemon = int(path.read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 10
        while Path(f"/proc/{daemon}/exe").exists() and time.monotonic() < deadline:
            try:
                os.kill(daemon, number)
            except ProcessLookupError:
                return
            time.sleep(0.1)


def clean_storage(folder: Path) -> None:
    """End the containers of such a folder, and remove it with its images."""
    stop_docker(folder)
    environment = {**os.environ, **podman_environment(folder)}
    if (folder / "g").exists():
        for arguments in (("rm", "--all", "--force", "--time=0"), ("rmi", "--all", "--force")):
            subprocess.run(
                ["podman", *arguments],
                env=environment,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    clean_storage(Path(sys.argv[1]))
