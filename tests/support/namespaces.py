"""Network namespaces for tests: made here, and removed again whatever happens.

The names carry the process ID, so that no others are touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CAPABILITY_NET_ADMIN, CAPABILITY_NET_RAW, CAPABILITY_SYS_ADMIN = 12, 13, 21


def has_capabilities(*wanted: int) -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    mask = int(effective.split()[1], 16)
    return all(mask >> number & 1 for number in wanted)


def missing(*tools: str) -> str:
    """Why namespaces cannot be had here, or ""."""
    if not has_capabilities(CAPABILITY_NET_ADMIN, CAPABILITY_NET_RAW, CAPABILITY_SYS_ADMIN):
        return "network namespaces need root"
    absent = [tool for tool in ("ip", "ethtool", *tools) if not shutil.which(tool)]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass
class Net:
    """Namespaces by roles, and the processes in them."""

    prefix: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def space(self, role: str) -> str:
        return f"{self.prefix}{role}"

    def ip(self, role: str, *arguments: str) -> None:
        subprocess.run(["ip", "-n", self.space(role), *arguments], check=True)

    def run(self, role: str, *command: str, timeout: float = 30) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.space(role), *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(
        self, role: str, *command: str, log: Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.space(role), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        self.processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        end(process)


@contextlib.contextmanager
def namespaces(roles: Sequence[str]) -> Iterator[Net]:
    """One namespace for each role, with a loopback interface."""
    net = Net(f"onvm{os.getpid()}")
    # It cleans up when its pipe closes, which no signal can prevent.
    cleaner = subprocess.Popen(
        [sys.executable, "-P", __file__, *(net.space(role) for role in roles)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for role in roles:
            subprocess.run(["ip", "netns", "add", net.space(role)], check=True)
            net.ip(role, "link", "set", "lo", "up")
            net.run(role, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        yield net
    finally:
        for process in reversed(net.processes):
            net.stop(process)
        cleaner.communicate()


def remove(spaces: Sequence[str]) -> None:
    """End what runs in namespaces, and remove them."""
    for space in spaces:
        if not Path("/run/netns", space).exists():
            continue
        listed = subprocess.run(
            ["ip", "netns", "pids", space], capture_output=True, text=True, check=False
        )
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", space], check=False)


def onvm(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "onvm_core.cli", *arguments]


def download(
    net: Net,
    folder: Path,
    host: str,
    n_bytes: int,
    client: str,
    server_role: str,
    *,
    bind: str = "",
) -> None:
    """Fetch a file by HTTP and compare its SHA-256.

    Args:
        bind: the address of the server itself; "": `host`.
    """
    content = os.urandom(1 << 16) * (n_bytes // (1 << 16) + 1)
    content = content[:n_bytes]
    served = folder / "www"
    served.mkdir(exist_ok=True)
    (served / "blob").write_bytes(content)
    server = net.start(
        server_role,
        sys.executable,
        "-m",
        "http.server",
        "8000",
        "--bind",
        bind or host.strip("[]"),
        "--directory",
        str(served),
        log=folder / "http.log",
    )
    fetch = (
        "import hashlib,time,urllib.request\n"
        "for attempt in range(50):\n"
        "    try:\n"
        f"        answer = urllib.request.urlopen('http://{host}:8000/blob', timeout=20); break\n"
        "    except OSError:\n"
        "        time.sleep(0.1)\n"
        "print(hashlib.sha256(answer.read()).hexdigest())\n"
    )
    got = net.run(client, sys.executable, "-c", fetch, timeout=60).strip()
    net.stop(server)
    assert got == hashlib.sha256(content).hexdigest()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that may have ended already."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.stdin.read()
    remove(sys.argv[1:])
