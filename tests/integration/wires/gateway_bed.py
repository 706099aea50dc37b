"""A client and a server in different subnets, and a gateway between them, in network namespaces.

Both ends have a default route and no static neighbour; all interfaces are at their default
settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import run_onvm
from namespaces import Net, namespaces, onvm
from up_host import status_of

READY_TIMEOUT_S = 30
DOWNLOAD_BYTES = 20_000_000
CLIENT, GATEWAY, SERVER, OTHER = "c", "d", "s", "z"
ADDRESSES = {
    CLIENT: ("10.0.0.5/24", "2001:db8:1::5/64"),
    SERVER: ("198.51.100.9/24", "2001:db8:2::9/64"),
    OTHER: ("192.0.2.9/28", "2001:db8:3::9/64"),
}
GATEWAYS = {
    CLIENT: ("10.0.0.1", "2001:db8:1::1"),
    SERVER: ("198.51.100.1", "2001:db8:2::1"),
    OTHER: ("192.0.2.1", "2001:db8:3::1"),
}
SERVER_V4, SERVER_V6 = "198.51.100.9", "2001:db8:2::9"
LINKS = {
    "lan": ("d0", ["10.0.0.1/24", "2001:db8:1::1/64"]),
    "wan": ("d1", ["198.51.100.1/24", "2001:db8:2::1/64"]),
}


@dataclass
class Gateway:
    net: Net
    folder: Path
    process: subprocess.Popen[bytes]
    has_nat: bool = False

    def call(self, *arguments: str) -> str:
        done = run_onvm(*arguments, env={**os.environ, "ONVM_RUNTIME_DIR": str(self.folder)})
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def router(self) -> dict[str, Any]:
        return next(nf for nf in self.report["nfs"] if nf["service"] == "router")

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = status_of(self.folder / "main")["report"]
        return report


@contextlib.contextmanager
def gateway_net() -> Iterator[Net]:
    with namespaces((CLIENT, GATEWAY, SERVER, OTHER)) as made:
        connect(made, CLIENT, "c0", "d0")
        connect(made, SERVER, "s0", "d1")
        yield made


def connect(net: Net, role: str, inner: str, outer: str) -> None:
    """Make a host whose default route is the gateway."""
    peer = ("peer", "name", outer, "netns", net.space(GATEWAY))
    net.ip(role, "link", "add", inner, "type", "veth", *peer)
    net.run(GATEWAY, "sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1")
    net.ip(GATEWAY, "link", "set", outer, "up")
    net.ip(role, "link", "set", inner, "up")
    for address in ADDRESSES[role]:
        net.ip(role, "addr", "add", address, "dev", inner)
    for version, gateway in zip(("-4", "-6"), GATEWAYS[role], strict=True):
        net.ip(role, version, "route", "add", "default", "via", gateway)


def until_said(log: Path, word: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while word not in log.read_text(encoding="utf-8"):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)


def configuration(
    services: Sequence[str],
    settings: str = "",
    others: str = "",
    ports: Sequence[str] = (),
    *,
    has_host: bool = False,
    kind: str = "af_packet",
) -> str:
    links = "".join(
        f'[ports.{name}]\nuri = "{kind}:{interface}"\naddresses = {json.dumps(addresses)}\n'
        + (f'slow_path = "tap:{name}-host"\n' if has_host else "")
        for name, (interface, addresses) in LINKS.items()
    )
    return f"""
{links}
[gateway]
ports = {json.dumps(["lan", "wan", *ports])}
services = {json.dumps(services)}
{settings}
{others}
"""


@contextlib.contextmanager
def run_manager(net: Net, folder: Path, text: str) -> Iterator[Gateway]:
    """A manager with this file; its log is printed if something fails."""
    config, log = folder / "onvm.toml", folder / "manager.log"
    config.write_text(text, encoding="utf-8")
    process = net.start(
        GATEWAY,
        *onvm("up", "-f", str(config)),
        log=log,
        environment={"ONVM_RUNTIME_DIR": str(folder)},
    )
    made = Gateway(net, folder, process)
    try:
        until_said(log, "is ready", process)
        yield made
    except BaseException:
        print(log.read_text(encoding="utf-8"))
        if process.poll() is None:
            print(made.call("status"))
        raise
    finally:
        net.stop(process)
