"""Boxes between client and server.

A box has one of two functions. *firewall* joins two ends of one subnet, as a bridge does, and
tracks connections. *firewall_nat_lb* also hides the client behind another address, and spreads
connections to a virtual address over backends. There is one backend, in a subnet of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import onvm_core
from onvm_core.bench.wire.wires import BOX, CLIENT, FAR, MACS, NEAR, SERVER, Wire
from onvm_sdk.errors import OnvmError

__all__ = ["BOXES", "CABLE", "FIREWALL", "FIREWALL_NAT_LB", "NFS", "Box", "Ends"]

FIREWALL, FIREWALL_NAT_LB = "firewall", "firewall_nat_lb"
NFS = ("firewall", "nat", "lb")
READY_S = 60.0
END_S = 20.0

PREFIX = 24
CLIENT_ADDRESS, CLIENT_GATEWAY = "10.7.0.1", "10.7.0.254"
PEER_ADDRESS = "10.7.0.2"
"""The server, if it is in the client's subnet."""
BACKEND, SERVER_GATEWAY = "203.0.113.1", "203.0.113.254"
VIP = "198.51.100.10"

BRIDGE_RULES = """
table ip wire {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        ct state new accept
    }
}
"""
ROUTER_RULES = f"""
table ip wire {{
    chain forward {{
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        ct state new accept
    }}
    chain before {{
        type nat hook prerouting priority -100;
        ip daddr {VIP} dnat to {BACKEND}
    }}
    chain after {{
        type nat hook postrouting priority 100;
        oifname "{FAR}" masquerade
    }}
}}
"""
# A rule, so that the firewall tracks connections: without one that can drop it tracks none.
FIREWALL_NF = """
[nfs.firewall.config]
default = "drop"
rules = [{ action = "accept" }]
"""
LB_NF = f"""
[nfs.lb.config]
vips = [
    {{ address = "{VIP}", protocol = "tcp", backends = [{{ address = "{BACKEND}" }}] }},
    {{ address = "{VIP}", protocol = "udp", backends = [{{ address = "{BACKEND}" }}] }},
]
"""
FUSED = """
[[fused]]
nfs = ["firewall", "nat", "lb"]
fuse = "always"
"""


@dataclass(frozen=True, slots=True)
class Ends:
    """Addresses that the client sends to.

    Args:
        service: address of connections and datagrams.
        host: address that answers pings.
    """

    service: str
    host: str


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    Args:
        name: its name in the figures.
        function: FIREWALL or FIREWALL_NAT_LB.
        start: sets it up on a wire; a context manager.
        has_offloads: False: all interfaces are without them.
        has_box: False: the ends are connected directly.
        only: the measurements to take; empty: all.
        baseline: the box of the same function that it is compared with; empty: none.
    """

    name: str
    function: str
    start: Callable[[Wire], AbstractContextManager[None]]
    has_offloads: bool = True
    has_box: bool = True
    only: tuple[str, ...] = ()
    baseline: str = ""

    @property
    def full_name(self) -> str:
        """Its name with its function's."""
        return f"{self.function}.{self.name}"

    @property
    def ends(self) -> Ends:
        """Addresses that the client sends to."""
        if self.function == FIREWALL:
            return Ends(PEER_ADDRESS, PEER_ADDRESS)
        return Ends(VIP, BACKEND)


def _one_subnet(wire: Wire) -> None:
    wire.address(CLIENT, "c0", f"{CLIENT_ADDRESS}/{PREFIX}")
    wire.address(SERVER, "s0", f"{PEER_ADDRESS}/{PREFIX}")


def _two_subnets(wire: Wire) -> None:
    wire.address(CLIENT, "c0", f"{CLIENT_ADDRESS}/{PREFIX}")
    wire.address(SERVER, "s0", f"{BACKEND}/{PREFIX}")


@contextlib.contextmanager
def _cable(wire: Wire) -> Iterator[None]:
    _one_subnet(wire)
    yield


@contextlib.contextmanager
def _kernel_bridge(wire: Wire) -> Iterator[None]:
    _one_subnet(wire)
    wire.spaces.ip(BOX, "link", "add", "br0", "type", "bridge")
    for interface in (NEAR, FAR):
        wire.spaces.ip(BOX, "link", "set", interface, "master", "br0")
    wire.spaces.ip(BOX, "link", "set", "br0", "up")
    # Packets on the bridge pass the hooks of IPv4, with connection tracking.
    wire.spaces.run(BOX, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    _set_rules(wire, BRIDGE_RULES)
    yield


@contextlib.contextmanager
def _kernel_router(wire: Wire) -> Iterator[None]:
    _two_subnets(wire)
    wire.address(BOX, NEAR, f"{CLIENT_GATEWAY}/{PREFIX}")
    wire.address(BOX, FAR, f"{SERVER_GATEWAY}/{PREFIX}")
    wire.route_through(CLIENT_GATEWAY, CLIENT)
    wire.route_through(SERVER_GATEWAY, SERVER)
    wire.spaces.run(BOX, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    _set_rules(wire, ROUTER_RULES)
    yield


def _set_rules(wire: Wire, rules: str) -> None:
    path = wire.folder / "rules.nft"
    path.write_text(rules, encoding="utf-8")
    wire.spaces.run(BOX, "nft", "-f", str(path))


def _onvm(
    function: str, idle: str = "adaptive", tables: str = ""
) -> Callable[[Wire], AbstractContextManager[None]]:
    """A manager with its NFs, with the defaults of `onvm up` but for `idle` and `tables`."""
    services = ["firewall"] if function == FIREWALL else list(NFS)

    @contextlib.contextmanager
    def start(wire: Wire) -> Iterator[None]:
        if function == FIREWALL:
            _one_subnet(wire)
        else:
            # NFs leave MAC addresses alone: each end takes the other one for its gateway.
            _two_subnets(wire)
            wire.route_through(CLIENT_GATEWAY, CLIENT, MACS[SERVER])
            wire.route_through(SERVER_GATEWAY, SERVER, MACS[CLIENT])
        config = wire.folder / "onvm.toml"
        config.write_text(
            f'[dataplane]\nidle = "{idle}"\n'
            f'[ports.client]\nuri = "af_packet:{NEAR}"\n'
            f'[ports.server]\nuri = "af_packet:{FAR}"\n'
            f'[chains.main]\nin = "client"\nout = "server"\nservices = {services}\n'
            f"{FIREWALL_NF}{LB_NF if 'lb' in services else ''}{tables}",
            encoding="utf-8",
        )
        with _manager(wire, config.name):
            yield

    return start


@contextlib.contextmanager
def _manager(wire: Wire, config: str) -> Iterator[None]:
    log = wire.folder / "manager.log"
    command = [sys.executable, "-P", "-m", "onvm_core.cli", "up", "-f", config]
    with log.open("wb") as output:
        manager = subprocess.Popen(
            wire.spaces.command(BOX, *command),
            cwd=wire.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "ONVM_RUNTIME_DIR": str(wire.folder / "r")},
        )
    try:
        deadline = time.monotonic() + READY_S
        while "is ready" not in log.read_text(encoding="utf-8"):
            if manager.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(encoding="utf-8").splitlines()
                raise OnvmError(f"onvm up: not ready: {lines[-1] if lines else 'no output'}")
            time.sleep(0.02)
        yield
    finally:
        manager.terminate()
        try:
            manager.wait(END_S)
        except subprocess.TimeoutExpired:
            manager.kill()
            manager.wait()


@contextlib.contextmanager
def _relay(wire: Wire) -> Iterator[None]:
    """The least that any program on packet sockets costs: it looks at nothing."""
    _one_subnet(wire)
    program = Path(str(onvm_core.__file__)).parent / "bin" / "onvm-bench-relay"
    relay = subprocess.Popen(wire.spaces.command(BOX, str(program), NEAR, FAR))
    try:
        yield
    finally:
        relay.kill()
        relay.wait()


CABLE = Box("cable", FIREWALL, _cable, has_box=False, only=("cpu",))
BOXES = (
    CABLE,
    Box("kernel", FIREWALL, _kernel_bridge),
    Box("relay", FIREWALL, _relay, baseline="kernel"),
    Box("onvm", FIREWALL, _onvm(FIREWALL), baseline="kernel"),
    Box("onvm_busy", FIREWALL, _onvm(FIREWALL, idle="busy"), only=("ping",), baseline="kernel"),
    Box("kernel_bare", FIREWALL, _kernel_bridge, has_offloads=False, only=("tcp",)),
    Box(
        "relay_bare",
        FIREWALL,
        _relay,
        has_offloads=False,
        only=("tcp",),
        baseline="kernel_bare",
    ),
    Box(
        "onvm_bare",
        FIREWALL,
        _onvm(FIREWALL),
        has_offloads=False,
        only=("tcp",),
        baseline="kernel_bare",
    ),
    Box("kernel", FIREWALL_NAT_LB, _kernel_router),
    Box("onvm", FIREWALL_NAT_LB, _onvm(FIREWALL_NAT_LB), baseline="kernel"),
    Box("onvm_fused", FIREWALL_NAT_LB, _onvm(FIREWALL_NAT_LB, tables=FUSED), baseline="kernel"),
)
"""In the order of measurement: each after its baseline."""
