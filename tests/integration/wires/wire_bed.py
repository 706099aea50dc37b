"""A client and a server of one subnet, and `onvm up` with a firewall between them.

The ports of the manager are of one kind. Packet sockets get veth pairs to the two ends; the
interfaces of tap ports move to the ends. The counters of the ends' interfaces are compared with
those of the ports.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from namespaces import Net, missing, namespaces, onvm

from onvm_core.manager.api.client import Client
from onvm_core.manager.api.messages import DownReply, DownRequest, StatusReply, StatusRequest

MISSING = missing("ping", "iperf3", "ss")
PORT_KINDS = ("af_packet", "af_xdp", "tap")
HERE = Path(__file__).parent
BLOB_BYTES = STREAM_BYTES = 20_000_000
WAIT_S = 20.0
SETTLE_S = 5.0
CLIENT, MANAGER, SERVER = "c", "d", "s"
ENDS = {CLIENT: "client", SERVER: "server"}
"""Port names by the roles of the ends behind them."""
ADDRESSES = {CLIENT: ("10.9.0.1", "fd00:9::1"), SERVER: ("10.9.0.2", "fd00:9::2")}
V4, V6 = ADDRESSES[SERVER]
CONFIG = """
[ports.client]
uri = "CLIENT"
[ports.server]
uri = "SERVER"
[nfs.firewall]
[chains.main]
in = "client"
out = "server"
services = ["firewall"]
"""


@dataclass(frozen=True)
class Counts:
    """What the interfaces of the ends and the ports have counted."""

    sent: dict[str, int]
    """By the interface of each end."""
    received: dict[str, int]
    port_rx: dict[str, int]
    """By the port; what was lost there is among them, and among the drops."""
    port_tx: dict[str, int]

    def since(self, before: Counts) -> Counts:
        def less(now: dict[str, int], then: dict[str, int]) -> dict[str, int]:
            return {role: now[role] - then[role] for role in now}

        return Counts(
            less(self.sent, before.sent),
            less(self.received, before.received),
            less(self.port_rx, before.port_rx),
            less(self.port_tx, before.port_tx),
        )


class Bed:
    """The ends, and a manager between them at times."""

    def __init__(self, net: Net, folder: Path, kind: str) -> None:
        self.net = net
        self.folder = folder
        self.kind = kind
        self.blob = random.Random(kind).randbytes(BLOB_BYTES)
        (folder / "blob").write_bytes(self.blob)
        self.manager: subprocess.Popen[bytes] | None = None
        self._before: Counts
        if kind != "tap":
            for role in ENDS:
                self.add_veth(role)

    # ---- interfaces ----

    def interface(self, role: str) -> str:
        """That of an end."""
        return {CLIENT: "t0", SERVER: "t1"}[role] if self.kind == "tap" else f"{role}0"

    def outer(self, role: str) -> str:
        """The interface of a port: the other end of a veth pair, or the tap itself."""
        return {CLIENT: "t0", SERVER: "t1"}[role] if self.kind == "tap" else f"d{role}"

    def add_veth(self, role: str) -> None:
        inner, outer = self.interface(role), self.outer(role)
        peer = ("peer", "name", outer, "netns", self.net.space(MANAGER))
        # A new one has the old address: neighbours remember it.
        address = f"02:00:00:00:00:{ord(role):02x}"
        self.net.ip(role, "link", "add", inner, "address", address, "type", "veth", *peer)
        # The manager's host sends nothing by itself.
        self.net.run(MANAGER, "sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1")
        self.net.ip(MANAGER, "link", "set", outer, "up")
        self._configure(role)

    def remove_veth(self, role: str) -> None:
        self.net.ip(MANAGER, "link", "del", self.outer(role))

    def _configure(self, role: str) -> None:
        interface = self.interface(role)
        v4, v6 = ADDRESSES[role]
        self.net.ip(role, "addr", "add", f"{v4}/24", "dev", interface)
        self.net.ip(role, "addr", "add", f"{v6}/64", "dev", interface, "nodad")
        self.net.ip(role, "link", "set", interface, "up")

    def set_mtu(self, role: str, mtu: int) -> None:
        self.net.ip(role, "link", "set", self.interface(role), "mtu", str(mtu))

    def down(self, role: str) -> None:
        """Take the interface of an end down."""
        self.net.ip(role, "link", "set", self.interface(role), "down")

    def up(self, role: str) -> None:
        """Bring it up again; the kernel has taken its IPv6 address away."""
        interface = self.interface(role)
        self.net.ip(role, "link", "set", interface, "up")
        address = f"{ADDRESSES[role][1]}/64"
        self.net.ip(role, "addr", "replace", address, "dev", interface, "nodad")

    @contextlib.contextmanager
    def tagged(self, *tags: int) -> Iterator[None]:
        """All frames of both ends carry VLAN tags meanwhile.

        The kernel lets a frame exceed the MTU by one tag. More tags leave less for IP, as they do
        with VLAN interfaces inside others.
        """
        programs = []
        for role in ENDS:
            self._route_to_peer(role, "add", "mtu", str(1500 - 4 * (len(tags) - 1)))
            log = self.folder / f"tags-{role}.log"
            command = (sys.executable, str(HERE / "vlan_tags.py"), self.interface(role))
            programs.append(self.net.start(role, *command, *map(str, tags), log=log))
            _wait(partial(_is_ready, log), "tags")
        try:
            yield
        finally:
            for program in programs:
                self.net.stop(program)
            for role in ENDS:
                self._route_to_peer(role, "del")

    def _route_to_peer(self, role: str, action: str, *options: str) -> None:
        for address in ADDRESSES[SERVER if role == CLIENT else CLIENT]:
            self.net.ip(role, "route", action, address, "dev", self.interface(role), *options)

    # ---- the manager ----

    def start(self, mtu: int = 0, workers: int = 1, firewall: str = "", **options: object) -> None:
        """Start `onvm up`, and wait until the ends reach each other.

        Args:
            mtu: that of all interfaces; 0: what they have.
            firewall: the configuration of the firewall; it must let echoes pass.
            options: of both ports.
        """
        given = {**options, **({"mtu": mtu} if mtu else {})}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        uris = {role: f"{self.kind}:{self.outer(role)}?{query}".rstrip("?") for role in ENDS}
        text = CONFIG.replace("CLIENT", uris[CLIENT]).replace("SERVER", uris[SERVER])
        text = f"[dataplane]\nworkers = {workers}\n{text}"
        if firewall:
            (self.folder / "firewall.toml").write_text(firewall, encoding="utf-8")
            text = text.replace("[nfs.firewall]", '[nfs.firewall]\nconfig = "firewall.toml"')
        config = self.folder / "onvm.toml"
        config.write_text(text, encoding="utf-8")
        log = self.folder / "manager.log"
        environment = {"ONVM_RUNTIME_DIR": str(self.folder / "r")}
        manager = self.net.start(
            MANAGER, *onvm("up", "-f", str(config)), log=log, environment=environment
        )
        self.manager = manager
        _wait(lambda: "is ready" in log.read_text() or manager.poll() is not None, "the manager")
        assert manager.poll() is None, log.read_text()
        for role in ENDS:
            if self.kind == "tap":
                self.net.ip(MANAGER, "link", "set", self.outer(role), "netns", self.net.space(role))
                self._configure(role)
            elif mtu:
                self.set_mtu(role, mtu)
        # A port over an XDP socket says what the other end of its veth must do.
        for command in re.findall("run: (ip netns exec .* ethtool .*)", log.read_text()):
            subprocess.run(command.split(), check=True)
        self.await_reachable()
        self._before = self._settled()

    def stop(self) -> None:
        """Stop the manager, as `onvm down` does."""
        assert self.manager is not None
        with self._client() as client:
            client.ask(DownRequest(), DownReply)
        assert self.manager.wait(WAIT_S) == 0

    def _client(self) -> Client:
        return Client(self.folder / "r" / "main")

    def report(self) -> dict[str, Any]:
        """What `onvm status --json` calls so."""
        with self._client() as client:
            status = client.ask(StatusRequest(), StatusReply)
        report: dict[str, Any] = msgspec.to_builtins(status.report)
        return report

    # ---- traffic ----

    def serve(self) -> None:
        """Start the servers that the clients below talk to."""
        log = self.folder / "ends.log"
        command = (sys.executable, str(HERE / "wire_ends.py"), "serve", str(self.folder / "blob"))
        self.net.start(SERVER, *command, log=log)
        self.net.start(SERVER, "iperf3", "-s", log=self.folder / "iperf.log")
        _wait(partial(_is_ready, log), "the servers")
        _wait(lambda: ":5201" in self.net.run(SERVER, "ss", "-Hltn"), "iperf3")

    def await_reachable(self) -> None:
        for host in (V4, V6):
            _wait(partial(self.reaches, host), f"ping {host}")

    def reaches(self, host: str) -> bool:
        command = ["ip", "netns", "exec", self.net.space(CLIENT), "ping", "-c1", "-W1", host]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def ping(self, host: str, n_bytes: int = 84) -> None:
        """20 pings in IP packets of that size, all of which must be answered."""
        self.client("ping", host, 20, n_bytes)

    def client(self, *arguments: object) -> str:
        """One of the clients of `wire_ends`; it must succeed."""
        command = (sys.executable, str(HERE / "wire_ends.py"), *map(str, arguments))
        return self.net.run(CLIENT, *command, timeout=60)

    def download(self, host: str) -> None:
        assert self.client("fetch", host).strip() == hashlib.sha256(self.blob).hexdigest()

    def stream(self, host: str, streams: int, *options: str) -> None:
        """TCP in one direction: it flows, whatever its speed."""
        command = ("iperf3", "-J", "-n", str(STREAM_BYTES), "-P", str(streams), "-c", host)
        said = json.loads(self.net.run(CLIENT, *command, *options))
        assert "error" not in said, said
        assert said["end"]["sum_received"]["bytes"] > STREAM_BYTES / 10, said["end"]

    # ---- counters ----

    def forget_counts(self) -> None:
        """Count from here: an interface was made again, and began at 0."""
        self._before = self._settled()

    def await_port(self, role: str, state: str) -> None:
        """Wait until a port is in this state."""

        def has_state() -> bool:
            ports = {port["name"]: port for port in self.report()["ports"]}
            return bool(ports[ENDS[role]]["state"] == state)

        _wait(has_state, f"a port that is {state}")

    def check_counts(self) -> None:
        """All packets since the last time are accounted for."""
        before, self._before = self._before, self._settled()
        self._before = self._settled(before)

    def _settled(self, before: Counts | None = None) -> Counts:
        """Counters when nothing is on its way; if that does not come about, what differs."""
        seen = ""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            links = self._links()
            report = self.report()
            if links != self._links():
                seen = "the ends do not come to rest"
                continue
            counts = self._counts(links, report)
            seen = _differences(report) or _unequal(counts.since(before or counts))
            if not seen:
                return counts
        raise AssertionError(seen)

    def _links(self) -> dict[str, dict[str, Any]]:
        links = {}
        for role in ENDS:
            said = self.net.run(role, "ip", "-s", "-j", "link", "show", self.interface(role))
            links[role] = json.loads(said)[0]["stats64"]
        return links

    def _counts(self, links: dict[str, dict[str, Any]], report: dict[str, Any]) -> Counts:
        ports = {port["name"]: port for port in report["ports"]}
        return Counts(
            sent={role: links[role]["tx"]["packets"] for role in ENDS},
            received={role: links[role]["rx"]["packets"] for role in ENDS},
            port_rx={role: ports[name]["rx"] for role, name in ENDS.items()},
            port_tx={role: ports[name]["tx"] for role, name in ENDS.items()},
        )


def _differences(report: dict[str, Any]) -> str:
    """Of the sum over everything that came in and went out; empty: none."""
    came = report["rx"] + report["originated"]
    went = report["tx"] + sum(report["drops"].values())
    return "" if came == went else f"received and originated {came}, sent and dropped {went}"


def _unequal(counts: Counts) -> str:
    """What one side has counted and the other has not; empty: nothing."""
    if counts.sent != counts.port_rx:
        return f"the ends sent {counts.sent}, the ports received {counts.port_rx}"
    if counts.received != counts.port_tx:
        return f"the ports sent {counts.port_tx}, the ends received {counts.received}"
    return ""


def _is_ready(log: Path) -> bool:
    return "ready" in log.read_text(encoding="utf-8")


def _wait(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.02)


@contextlib.contextmanager
def bed(kind: str) -> Iterator[Bed]:
    """A bed without a manager yet; a context manager."""
    with (
        tempfile.TemporaryDirectory(prefix="onvm-w-") as folder,
        namespaces((CLIENT, MANAGER, SERVER)) as net,
    ):
        yield Bed(net, Path(folder), kind)
