"""Wires: the namespaces of a client, a box and a server, with a veth pair on each side of the box.

```
 client           box            server
   c0 ──────── b0     b1 ──────── s0
```

Interfaces keep their default settings, unless a wire is without offloads. Everything is removed in
every case, also when this process is killed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onvm_core.cluster.dev.namespaces import Spaces, make_spaces

__all__ = ["BOX", "CLIENT", "SERVER", "Wire", "make_wire"]

CLIENT, BOX, SERVER = "client", "box", "server"
NEAR, FAR = "b0", "b1"
"""The interfaces of the box."""
ENDS = {CLIENT: "c0", SERVER: "s0"}
MACS = {CLIENT: "02:00:00:00:00:01", SERVER: "02:00:00:00:00:02"}
OFFLOADS = ("tx", "tso", "gso", "gro", "tx-udp-segmentation")


class Wire:
    """A client and a server, and processes in their namespaces.

    Args:
        folder: folder for files of the box; removed with the wire.
        has_box: False: the two ends are connected directly.
    """

    def __init__(self, spaces: Spaces, folder: Path, *, has_offloads: bool, has_box: bool) -> None:
        self.spaces = spaces
        self.folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        pairs = [(CLIENT, ENDS[CLIENT], BOX, NEAR), (SERVER, ENDS[SERVER], BOX, FAR)]
        if not has_box:
            pairs = [(CLIENT, ENDS[CLIENT], SERVER, ENDS[SERVER])]
        for role, one, other_role, other in pairs:
            peer = ("peer", "name", other, "netns", spaces.name(other_role))
            spaces.ip(role, "link", "add", one, "type", "veth", *peer)
            for place, interface in ((role, one), (other_role, other)):
                if interface in ENDS.values():
                    spaces.ip(place, "link", "set", interface, "address", MACS[place])
                if not has_offloads:
                    off = [word for name in OFFLOADS for word in (name, "off")]
                    spaces.run(place, "ethtool", "-K", interface, *off)
                spaces.ip(place, "link", "set", interface, "up")

    def address(self, role: str, interface: str, address: str) -> None:
        """Give an interface an IPv4 address, with its prefix length."""
        self.spaces.ip(role, "addr", "add", address, "dev", interface)

    def route_through(self, gateway: str, role: str, mac: str = "") -> None:
        """Let an end send everything to a gateway.

        Args:
            mac: its MAC address; empty: the gateway answers ARP itself.
        """
        interface = ENDS[role]
        self.spaces.ip(role, "route", "add", "default", "via", gateway, "dev", interface, "onlink")
        if mac:
            self.spaces.ip(
                role, "neigh", "add", gateway, "lladdr", mac, "dev", interface, "nud", "permanent"
            )

    def packets(self, role: str, counter: str) -> int:
        """A counter of an end's interface: `rx_packets` or `tx_packets`."""
        path = f"/sys/class/net/{ENDS[role]}/statistics/{counter}"
        return int(self.spaces.run(role, "cat", path))

    def cut_datagrams(self) -> None:
        """Let the client's kernel cut UDP into packets before they reach its interface."""
        self.spaces.run(CLIENT, "ethtool", "-K", ENDS[CLIENT], "tx-udp-segmentation", "off")

    def start(self, role: str, *command: str) -> subprocess.Popen[str]:
        """Start a command in a namespace; its output goes to a pipe."""
        process = subprocess.Popen(
            self.spaces.command(role, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def start_end(self, role: str, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start one of the programs of this package."""
        module = f"onvm_core.bench.wire.{program}"
        return self.start(role, sys.executable, "-P", "-m", module, *map(str, arguments))

    def stop(self, process: subprocess.Popen[str]) -> None:
        """End a process that `start` has started."""
        process.kill()
        process.communicate()
        self._processes.remove(process)

    def close(self) -> None:
        """End all processes."""
        for process in reversed(list(self._processes)):
            self.stop(process)


@contextlib.contextmanager
def make_wire(*, has_offloads: bool = True, has_box: bool = True) -> Iterator[Wire]:
    """Make a wire, and remove it; a context manager.

    Raises:
        ConfigError: this user may not make namespaces, or this machine cannot.
    """
    # A short path: sockets have room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="onvm-wire-"))
    with make_spaces((CLIENT, BOX, SERVER), folder, prefix="onvmwire") as spaces:
        wire = Wire(spaces, folder, has_offloads=has_offloads, has_box=has_box)
        try:
            yield wire
        finally:
            wire.close()
