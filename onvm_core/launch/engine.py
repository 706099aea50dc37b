"""The program that runs containers: podman or docker, through its command line.

podman comes first: it needs no daemon, and the manager can limit and end its containers without
help. The requested engine, or the first that works, is used; nothing here depends on a
configuration file of theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onvm_core.launch.limits import Limits
from onvm_core.launch.seccomp import tighten
from onvm_sdk.errors import ConfigError, OnvmError
from onvm_sdk.spelling import one_of

__all__ = ["ENGINES", "VARIABLE", "Engine", "Found", "find_engine"]

ENGINES = ("podman", "docker")
VARIABLE = "ONVM_CONTAINER_ENGINE"
TIMEOUT_S = 30.0
OWNER_LABEL = "onvm.owner"
_NOFILE, _NPROC = 4096, 16384
"""Upper bound: an engine that sets its own defaults fails where it may not raise limits."""
_DOCKER_LIMITS = {"cpuset": "CPUSet", "memory": "MemoryLimit", "cpu": "CpuCfsQuota"}


@dataclass(frozen=True, slots=True)
class Found:
    """A container of ours, running or not."""

    name: str
    owner: str
    pid: int
    """PID of its first process, as this process sees it; 0 if it does not run, or is not known."""
    is_running: bool


class Engine:
    """podman or docker.

    Args:
        program: its name.
        facts: its own description (``info``).
    """

    def __init__(self, program: str, facts: Mapping[str, Any]) -> None:
        self.program = program
        self._facts = facts

    @property
    def is_podman(self) -> bool:
        """True for podman, False for docker."""
        return self.program == "podman"

    def describe(self) -> str:
        """Its name, its version and its container runtime."""
        if self.is_podman:
            host, version = self._facts["host"], self._facts["version"]["Version"]
            return f"podman {version}, {host['ociRuntime']['name']}"
        return f"docker {self._facts.get('ServerVersion', '')}"

    def unenforced(self, limits: Limits) -> dict[str, str]:
        """Limits that it cannot enforce here, each with the reason."""
        if self.is_podman:
            has = set(self._facts["host"].get("cgroupControllers") or ())
        else:
            has = {name for name, key in _DOCKER_LIMITS.items() if self._facts.get(key)}
        return {
            text: f"{self.program} may not use {name!r} cgroups here"
            for name, text in limits.controllers.items()
            if name not in has
        }

    def ask(self, *arguments: str) -> str:
        """Run one of its commands; return the output.

        Raises:
            OnvmError: the command fails; carries its last line.
        """
        try:
            done = subprocess.run(
                [self.program, *arguments],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OnvmError(f"{self.program} {arguments[0]}: {error}") from None
        if done.returncode != 0:
            raise OnvmError(f"{self.program} {arguments[0]}: {_last_line(done.stderr)}")
        return done.stdout

    def _has(self, kind: str, name: str) -> bool:
        try:
            self._identify(kind, name)
        except OnvmError:
            return False
        return True

    def _identify(self, kind: str, name: str) -> str:
        return self.ask(kind, "inspect", "--format", "{{.Id}}", name).strip()

    # ---- images ----

    def has_image(self, name: str) -> bool:
        """True if there is an image of that name and tag."""
        return self._has("image", name)

    def load(self, archive: Path) -> None:
        """Load an image from an archive."""
        self.ask("load", "--quiet", "--input", str(archive))

    def image_bytes(self, name: str) -> int:
        """Size of an image, with all layers."""
        return int(self.ask("image", "inspect", "--format", "{{.Size}}", name))

    def images(self, label: str, value: str) -> list[str]:
        """Names, with their tags, of images with a label."""
        said = self.ask(
            "images", "--filter", f"label={label}={value}", "--format", "{{.Repository}}:{{.Tag}}"
        )
        return said.split()

    def remove_image(self, name: str) -> None:
        """Remove an image that no container uses."""
        self.ask("rmi", name)

    # ---- containers ----

    def isolation(self, *, has_network: bool = False) -> list[str]:
        """Arguments of ``run``: no rights, no writable folder but /tmp, and no network or this
        host's.
        """
        user = f"{os.getuid()}:{os.getgid()}"
        if self.is_podman:
            # User 0 inside is the manager's user outside.
            own = ["--user=0:0", "--read-only-tmpfs=false", "--systemd=false"]
            own += ["--http-proxy=false", "--log-driver=passthrough"]
            own += [] if has_network else ["--no-hosts"]
        else:
            own = [f"--user={user}", "--log-driver=none", "--interactive"]
        if Path("/sys/fs/selinux/enforce").exists():
            own.append("--security-opt=label=disable")  # else it may not connect to our socket
        return [
            "--pull=never",
            f"--network={'host' if has_network else 'none'}",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--pids-limit=256",
            "--hostname=onvm-nf",
            f"--ulimit=nofile={_at_most(resource.RLIMIT_NOFILE, _NOFILE)}",
            f"--ulimit=nproc={_at_most(resource.RLIMIT_NPROC, _NPROC)}",
            *own,
        ]

    def filter(self, *, has_network: bool = False) -> bytes:
        """Its seccomp profile without the calls that no NF needs; empty if it does not tell the
        path.

        Docker's profile is inside its daemon. It denies new namespaces by itself; podman's does
        not.
        """
        security = self._facts.get("host", {}).get("security", {}) if self.is_podman else {}
        if not security.get("seccompEnabled"):
            return b""
        try:
            profile = json.loads(Path(security["seccompProfilePath"]).read_bytes())
        except (OSError, KeyError, ValueError):
            return b""
        return json.dumps(tighten(profile, has_network=has_network)).encode()

    def limits(self, limits: Limits) -> Iterator[str]:
        """Arguments of ``run`` that enforce the limits that it can enforce."""
        lacking = self.unenforced(limits)
        for controller, text in limits.controllers.items():
            if text in lacking:
                continue
            if controller == "cpuset":
                yield f"--cpuset-cpus={','.join(map(str, limits.cpus))}"
            elif controller == "memory":
                yield f"--memory={limits.memory_mib}m"
                yield f"--memory-swap={limits.memory_mib}m"
            else:
                yield f"--cpus={limits.cpu_quota:g}"

    def containers(self) -> list[Found]:
        """Containers that managers of this user have made.

        Raises:
            OnvmError: it does not list them.
        """
        if self.is_podman:
            said = self.ask("ps", "--all", "--filter", f"label={OWNER_LABEL}", "--format", "json")
            return [
                Found(one["Names"][0], one["Labels"][OWNER_LABEL], one["Pid"], one["Pid"] > 0)
                for one in json.loads(said or "[]")
            ]
        said = self.ask(
            "ps",
            "--all",
            "--filter",
            f"label={OWNER_LABEL}",
            "--format",
            '{{.Names}}\t{{.State}}\t{{.Label "' + OWNER_LABEL + '"}}',
        )
        rows = (line.split("\t") for line in said.splitlines())
        return [Found(name, owner, 0, state == "running") for name, state, owner in rows]

    def has_container(self, name: str) -> bool:
        """True if it has made a container of that name."""
        return self._has("container", name)

    def remove(self, name: str) -> bool:
        """End a container, if there is one, and remove it; return True if none is left."""
        try:
            if not self.is_podman:
                self.ask("rm", "--force", name)
                return True
            number = self._identify("container", name)
            self.ask("rm", "--force", "--ignore", "--time=0", name)
        except OnvmError as error:
            return "no such container" in str(error).lower()
        self._forget(number)
        return True

    def _forget(self, number: str) -> None:
        # podman leaves this out if the container's monitor (conmon) has been killed too: its
        # cgroups would stay.
        runtime = self._facts["host"]["ociRuntime"].get("path", "runc")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [runtime, "delete", "--force", number],
                check=False,
                timeout=TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


def find_engine(choice: str = "", *, field: str = "engine") -> Engine:
    """The engine that was chosen, or else the first that works here.

    Args:
        choice: "": the value of the environment variable ``ONVM_CONTAINER_ENGINE``, if it is set.

    Raises:
        ConfigError: the name is not known.
        OnvmError: no engine works; carries the reason and the command that helps.
    """
    if not choice and VARIABLE in os.environ:
        choice, field = os.environ[VARIABLE], VARIABLE
    if choice and choice not in ENGINES:
        raise ConfigError(f"expected {one_of(ENGINES, choice)}", field=field, value=choice)
    wanted = [choice] if choice else list(ENGINES)
    there = [program for program in wanted if shutil.which(program)]
    if not there:
        missing = f"{choice} is not" if choice else "neither podman nor docker is"
        packages = "docker.io" if choice == "docker" else "podman runc"
        raise OnvmError(f"{missing} installed; run: sudo apt-get install {packages}")
    problems = []
    for program in there:
        try:
            return Engine(program, _facts(program))
        except (OnvmError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
    raise OnvmError("; ".join(problems))


def _facts(program: str) -> dict[str, Any]:
    template = "json" if program == "podman" else "{{json .}}"
    facts: dict[str, Any] = json.loads(Engine(program, {}).ask("info", "--format", template))
    # docker answers even without its daemon, and reports that here.
    if errors := facts.get("ServerErrors"):
        raise OnvmError(f"{program} info: {errors[0]}")
    return facts


def _at_most(what: int, value: int) -> str:
    _, hard = resource.getrlimit(what)
    number = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return f"{number}:{number}"


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1].removeprefix("Error: ") if lines else "it failed and said nothing"
