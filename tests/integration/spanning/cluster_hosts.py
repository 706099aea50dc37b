"""Several managers of one machine as the hosts of a cluster, without ZooKeeper or agents.

Each has a loopback address as its address on the data network; the test sends them their views.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
from up_host import Host

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client
from onvm_core.manager.cluster_view.view import (
    ChainView,
    ClusterView,
    DataSecurity,
    InstanceView,
    LocalHost,
    PeerView,
    PortView,
)

VNI = 0x123456
TUNNEL_PORT = 4790


def secret_of(a: str, b: str) -> str:
    """A secret of two hosts, as hexadecimal."""
    return hashlib.sha256("".join(sorted((a, b))).encode()).hexdigest()


def ask(host: Host, name: str, request: m.Request) -> Any:
    """What `--json` would give, without starting a program for each look."""
    with Client(host.runtime / name) as client:
        return msgspec.to_builtins(client.ask(request, object))


@dataclass
class Managers:
    """Managers by name, and the view that they have in common.

    Attributes:
        addresses: of hosts; one without a configuration is no manager, but the test itself.
        security: of packets between them.
    """

    host: Host
    configs: Mapping[str, str]
    addresses: Mapping[str, str]
    chains: Sequence[ChainView]
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    security: DataSecurity = "none"

    def start(self) -> None:
        def start(name: str) -> str:
            (self.host.folder / f"{name}.toml").write_text(self.configs[name])
            return self.host.do("up", "-d", "--name", name, "-f", f"{name}.toml")

        with ThreadPoolExecutor() as pool:
            list(pool.map(start, self.configs))

    def status(self, name: str) -> dict[str, Any]:
        return ask(self.host, name, m.StatusRequest())

    def local(self, name: str) -> dict[str, Any]:
        return ask(self.host, name, m.ClusterLocalRequest())

    def instances(self) -> list[InstanceView]:
        """All NF hosts of all managers that answer; each keeps its number."""
        found = []
        for name in self.configs:
            for one in msgspec.convert(self.local(name)["hosts"], list[LocalHost]):
                number = self.numbers.setdefault((name, one.name), 100 + len(self.numbers))
                found.append(
                    InstanceView(
                        number=number,
                        host=name,
                        name=one.name,
                        services=one.services,
                        state="active" if one.state == "active" else "draining",
                        spare_pps=5_000_000,
                        claims=one.claims,
                    )
                )
        return found

    def view(self, name: str, instances: list[InstanceView]) -> ClusterView:
        names = list(self.addresses)
        return ClusterView(
            cluster="test",
            vni=VNI,
            data_security=self.security,
            host=name,
            number=names.index(name) + 1,
            address=self.addresses[name],
            peers=[
                PeerView(
                    name=other,
                    number=number + 1,
                    address=address,
                    secret="" if self.security == "none" else secret_of(name, other),
                )
                for number, (other, address) in enumerate(self.addresses.items())
                if other != name
            ],
            instances=instances,
            chains=list(self.chains),
        )

    def apply(self) -> dict[str, dict[str, Any]]:
        """Give all managers the view of what there is now; what they reply."""
        instances = self.instances()
        return {
            name: ask(self.host, name, m.ClusterApplyRequest(view=self.view(name, instances)))
            for name in self.configs
        }

    def down(self) -> dict[str, dict[str, Any]]:
        """Let packets come to an end, then end all; their last reports."""
        reports = {}
        for name in self.configs:
            reports[name] = ask(self.host, name, m.DownRequest())["report"]
        return reports


def wait_for(condition: Callable[[], bool], timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def chain(near: str, far: str, *services: str, **settings: Any) -> ChainView:
    """A chain between ports HOST:PORT."""
    ends = [PortView(host=text.split(":")[0], port=text.split(":")[1]) for text in (near, far)]
    return ChainView(
        number=7, name="edge", near=ends[0], far=ends[1], services=list(services), **settings
    )


def data_socket(address: str) -> socket.socket:
    """The data network's end of a host that is the test itself."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    made.settimeout(10)
    made.bind((address, TUNNEL_PORT))
    return made


def receive(end: socket.socket) -> tuple[bytes, list[Any], tuple[str, int]]:
    """The next packet that comes to a data socket, with control messages and sender; no probe."""
    while True:
        data, ancillary, _, sender = end.recvmsg(4096, 256)
        if not is_probe(data):
            return data, ancillary, sender


def is_probe(data: bytes) -> bool:
    """True for BFD within the tunnel: an OAM packet of VXLAN-GPE."""
    return bool(data) and bool(data[0] & 1)
