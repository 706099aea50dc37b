"""Settings of interfaces that change while a port is open, and go back when it closes.

A port may set the MTU, DPDK's drivers make interfaces promiscuous, and a port over an XDP socket
needs offloads switched off. `KeptSettings` notes what was there before, in a file that outlives the
process. The file is locked as long as its process lives, so the next start finds what a killed one
has left (`restore_abandoned`).

Only a setting that is still as the port made it goes back: a user may have changed it since.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from onvm_core.interfaces.netlink import IFF_PROMISC, Link, Rtnetlink
from onvm_core.interfaces.offloads import (
    CHECKSUMS,
    MERGING,
    SEGMENTATION,
    VLAN_INSERTION,
    VLAN_PARSING,
    Ethtool,
)
from onvm_core.interfaces.use import InterfaceUse
from onvm_sdk.errors import OnvmError

__all__ = ["KeptSettings", "SettingsError", "restore_abandoned"]

_NAMESPACE = Path("/proc/self/ns/net")


class SettingsError(OnvmError):
    """The settings of an interface cannot be changed; carries one line."""


class _Values(msgspec.Struct, frozen=True):
    """Settings that ports change."""

    mtu: int
    is_promiscuous: bool
    xdp_program: int

    @classmethod
    def of(cls, link: Link) -> _Values:
        return cls(link.mtu, link.is_promiscuous, link.xdp_program)


class _Interface(msgspec.Struct):
    """An interface before a port used it."""

    index: int
    address: str
    """Its MAC address; another interface may get its index after a restart of the host."""
    before: _Values
    features: list[str]
    """Features that were on and have been switched off."""
    after: _Values | None = None
    """Settings when the port was open; None: it did not come so far."""


class _Record(msgspec.Struct):
    """The content of a file: the namespace, and the interfaces that one port uses."""

    namespace: int
    interfaces: list[_Interface]


class KeptSettings:
    """The settings of the interfaces that the ports of this process use.

    Args:
        folder: folder for the files, of this user alone; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, tuple[Path, int, _Record]] = {}

    def keep(self, name: str, use: InterfaceUse) -> None:
        """Note the settings of an interface, and make them as a port needs them.

        For frames, the offloads are switched off that an XDP socket does not survive; at the other
        end of a veth as well if it is in this namespace, because it must send whole packets.

        Raises:
            SettingsError: the kernel refuses a change; nothing is changed then.
        """
        if name in self._kept:
            return
        try:
            with Rtnetlink() as netlink:
                links = {link.index: link for link in netlink.links()}
        except OSError as error:
            raise SettingsError(
                f"expected a process that may open netlink sockets: {error.strerror}"
            ) from None
        own = next((link for link in links.values() if link.name == name), None)
        if own is None:
            return  # the port reports it
        used: list[tuple[Link, tuple[str, ...]]] = [(own, (*MERGING, *VLAN_PARSING))]
        peer = links.get(own.lower) if own.kind == "veth" and own.namespace is None else None
        if peer is not None:
            used.append((peer, (*CHECKSUMS, *SEGMENTATION, *VLAN_INSERTION)))
        if use is InterfaceUse.PACKETS:
            used = [(own, ())]
        with Ethtool() as ethtool:
            record = _Record(
                _NAMESPACE.stat().st_ino,
                [
                    _Interface(
                        link.index,
                        link.address,
                        _Values.of(link),
                        _switched(ethtool, link.name, features),
                    )
                    for link, features in used
                ],
            )
            self._kept[name] = self._write(name, record)
            try:
                for (link, _), one in zip(used, record.interfaces, strict=True):
                    if one.features:
                        ethtool.set_features(link.name, dict.fromkeys(one.features, False))
            except OSError as error:
                self.restore(name)
                raise SettingsError(
                    f"expected offloads of {link.name} that can be switched off: {error.strerror}"
                ) from None

    def settle(self, name: str) -> None:
        """Note the settings that the port has made, now that it is open."""
        if name not in self._kept:
            return
        _, descriptor, record = self._kept[name]
        with Rtnetlink() as netlink:
            links = {link.index: link for link in netlink.links()}
        for one in record.interfaces:
            if one.index in links:
                one.after = _Values.of(links[one.index])
        data = msgspec.json.encode(record)
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))

    def restore(self, name: str) -> None:
        """Put back the settings of an interface; its port is closed."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        path, descriptor, record = kept
        try:
            _restore(record)
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def restore_all(self) -> None:
        """Put back all settings; the ports are closed."""
        for name in list(self._kept):
            self.restore(name)

    def _write(self, name: str, record: _Record) -> tuple[Path, int, _Record]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{record.namespace}-{os.getpid()}-{name}.json"
        scratch = path.with_suffix(".new")
        descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # before another process can see it
        os.write(descriptor, msgspec.json.encode(record))
        scratch.rename(path)
        return path, descriptor, record


def restore_abandoned(folder: Path) -> list[str]:
    """Put back what processes have left that were killed; names of the interfaces."""
    restored: list[str] = []
    for path in folder.glob("*.json"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                restored += _restore_file(path)
            finally:
                os.close(descriptor)
    return restored


def _restore_file(path: Path) -> list[str]:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
    except msgspec.MsgspecError:  # of another version
        path.unlink(missing_ok=True)
        return []
    if record.namespace != _NAMESPACE.stat().st_ino:
        return []  # a start in that namespace does it
    names = _restore(record, was_killed=True)
    path.unlink(missing_ok=True)
    return names


def _restore(record: _Record, *, was_killed: bool = False) -> list[str]:
    """Put back what is still as the port made it; names of the interfaces that are there."""
    names = []
    with Rtnetlink() as netlink, Ethtool() as ethtool:
        links = {link.index: link for link in netlink.links()}
        for one in record.interfaces:
            link = links.get(one.index)
            if link is None or link.address != one.address:
                continue
            names.append(link.name)
            # Settings can be put back one by one: an interface may vanish, and refuse some.
            if was_killed and _is_left(one, link):
                with suppress(OSError):
                    netlink.remove_xdp(link)
            if _differs(one, link, "mtu"):
                with suppress(OSError):
                    ethtool.set_mtu(link.name, one.before.mtu)
            if _differs(one, link, "is_promiscuous"):
                with suppress(OSError):
                    ethtool.set_flag(link.name, IFF_PROMISC, one.before.is_promiscuous)
            with suppress(OSError):
                now = ethtool.features(link.name)
                back = {name for name in one.features if name in now and not now[name].is_wanted}
                if back:
                    ethtool.set_features(link.name, dict.fromkeys(back, True))
    return names


def _is_left(one: _Interface, link: Link) -> bool:
    """The XDP program of the killed process is still there; no socket takes its packets."""
    is_ours = one.after is None or one.after.xdp_program == link.xdp_program
    return link.xdp_program not in (0, one.before.xdp_program) and is_ours


def _differs(one: _Interface, link: Link, field: str) -> bool:
    """The port has changed a setting, and no other user has changed it since."""
    now = getattr(_Values.of(link), field)
    made = now if one.after is None else getattr(one.after, field)
    return bool(now == made != getattr(one.before, field))


def _switched(ethtool: Ethtool, interface: str, wrong: Iterable[str]) -> list[str]:
    """The features among `wrong` that are on and can be switched off."""
    if not wrong:
        return []
    try:
        features = ethtool.features(interface)
    except OSError:
        return []
    return [
        name
        for name in wrong
        if name in features and features[name].can_change and features[name].is_wanted
    ]
