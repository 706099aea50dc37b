"""Slow paths: taps by which the host has addresses of ports, beside the NF that answers there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from onvm_core.interfaces.netlink import Rtnetlink
from onvm_core.manager.config.onvm_toml import Config
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.codec import PortLink
from onvm_core.manager.ports import parse_uri
from onvm_sdk.errors import ConfigError

__all__ = ["SlowPaths"]

_SETTING = "/proc/sys/net/ipv4/conf/{}/arp_ignore"
_OWN_ONLY = "1"
"""Answer ARP only for addresses of the interface itself."""


class SlowPaths:
    """The slow paths of a manager's file."""

    def __init__(self, deployment: Deployment, config: Config, path: Path) -> None:
        self._deployment = deployment
        self._config = config
        self._path = path
        self._before: dict[Path, str] = {}

    def begin(self) -> None:
        """Give each tap the addresses of its port, and both the same MAC address.

        Raises:
            ConfigError: the kernel refuses.
        """
        for name, port in self._config.ports.items():
            link = port.link(name)
            if link is None or not link.slow_path:
                continue
            mac = mac_of(link, name, self._deployment.mac_of(name))
            try:
                set_up(parse_uri(port.slow_path).target, mac, link.addresses)
            except OSError as error:
                raise ConfigError(
                    f"expected a tap that takes {mac} and its addresses: {error.strerror}",
                    file=str(self._path),
                    field=f"ports.{name}.slow_path",
                    value=port.slow_path,
                ) from None
            self._silence(parse_uri(port.uri).target)
            self._deployment.change_link(name, msgspec.structs.replace(link, mac=mac))

    def _silence(self, interface: str) -> None:
        """Let the kernel not answer ARP at the port's interface for addresses of the tap."""
        setting = Path(_SETTING.format(interface))
        with suppress(OSError):  # a port without an interface
            before = setting.read_text(encoding="ascii").strip()
            if before == "0":
                setting.write_text(_OWN_ONLY, encoding="ascii")
                self._before[setting] = before

    def close(self) -> None:
        """Put settings of interfaces back that are still as they were set here."""
        for setting, before in self._before.items():
            with suppress(OSError):
                if setting.read_text(encoding="ascii").strip() == _OWN_ONLY:
                    setting.write_text(before, encoding="ascii")
        self._before.clear()


def mac_of(link: PortLink, port: str, interface: bytes) -> str:
    """The MAC address that a port and its tap share.

    It is locally administered, and the same after each start; `interface` is that of the port.
    """
    if link.mac == "interface" and interface:
        return interface.hex(":")
    if link.mac not in ("", "interface"):
        return link.mac.lower()
    digest = hashlib.sha256(f"onvm slow path {interface.hex()} {port}".encode()).digest()
    return (b"\x02" + digest[:5]).hex(":")


def set_up(tap: str, mac: str, addresses: Sequence[str]) -> None:
    """Give a tap its MAC address and addresses, without duplicate address detection.

    Raises:
        OSError: the kernel refuses.
    """
    with Rtnetlink() as netlink:
        (index,) = (link.index for link in netlink.links() if link.name == tap)
        netlink.set_mac(index, bytes.fromhex(mac.replace(":", "")))
        for address in addresses:
            netlink.add_address(index, address)
