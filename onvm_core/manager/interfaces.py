"""Interfaces of the kernel that ports use: checked before, changed while a port is open, restored.

A start without such ports, of which most tests are, does not load the code behind this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onvm_core.interfaces.use import InterfaceUse
from onvm_core.manager.ports import PortKind, PortUri, parse_uri
from onvm_sdk.errors import ConfigError

if TYPE_CHECKING:
    from onvm_core.interfaces.settings import KeptSettings

__all__ = ["INTERFACES", "PortInterfaces", "check_ports", "open_port_warnings"]

log = logging.getLogger("onvm.interfaces")

INTERFACES = ".interfaces"
"""The folder for notes, among the directories of managers; no manager can have this name."""


def check_ports(
    uris: Mapping[str, str],
    kinds: Mapping[str, PortKind],
    pairs: Iterable[tuple[str, str]] = (),
    *,
    file: str | None = None,
) -> list[str]:
    """Check the interfaces of ports before they are opened; return the warnings.

    Args:
        uris: URIs of ports, by the fields in which they stand.
        pairs: fields of ports between which packets go.

    Raises:
        ConfigError: packets cannot pass an interface.
    """
    warnings = []
    for fault in _faults(uris, kinds, pairs, file):
        if fault.is_error:
            raise fault.error
        warnings.append(fault.line)
    return warnings


def open_port_warnings(
    uris: Mapping[str, str], kinds: Mapping[str, PortKind], pairs: Iterable[tuple[str, str]] = ()
) -> list[str]:
    """Errors and warnings about the interfaces of open ports; arguments as in `check_ports`."""
    return [fault.line for fault in _faults(uris, kinds, pairs, None, are_open=True)]


@dataclass(frozen=True, slots=True)
class _Fault:
    """A finding about a port that is an error or a warning."""

    error: ConfigError
    is_error: bool

    @property
    def line(self) -> str:
        return f"{self.error.field}: {self.error.value!r}: {self.error.expected}"


def _faults(
    uris: Mapping[str, str],
    kinds: Mapping[str, PortKind],
    pairs: Iterable[tuple[str, str]],
    file: str | None,
    *,
    are_open: bool = False,
) -> Iterator[_Fault]:
    parsed = {field: parse_uri(uri, file=file, field=field) for field, uri in uris.items()}
    used = {field: use for field, uri in parsed.items() if (use := _use(uri, kinds)) is not None}
    if not used:
        return
    from onvm_core.interfaces.checks import Severity, check_interface, check_mtus, missing_line
    from onvm_core.interfaces.facts import Snapshot

    def fault(field: str, line: str, *, is_error: bool = False) -> _Fault:
        return _Fault(ConfigError(line, file=file, field=field, value=uris[field]), is_error)

    try:
        snapshot = Snapshot()
    except OSError as error:
        line = f"expected a process that may open netlink sockets: {error.strerror}"
        yield fault(next(iter(used)), line, is_error=True)
        return
    host = snapshot.host()
    mtus: dict[str, int] = {}
    for field, use in used.items():
        uri = parsed[field]
        link = snapshot.find(uri.target)
        if link is None:
            yield fault(field, missing_line(uri.target, host), is_error=True)
            continue
        mtu, queues = _option(uri, kinds, "mtu", 0), _option(uri, kinds, "queues", 1)
        mtus[field] = mtu or link.mtu
        facts = snapshot.facts(link)
        for finding in check_interface(facts, host, use, mtu=mtu, queues=queues, is_open=are_open):
            if finding.severity is not Severity.NOTE:
                yield fault(field, finding.line, is_error=finding.severity is Severity.ERROR)
    for near, far in dict.fromkeys(pairs):
        together = {parsed[field].target: mtus[field] for field in (near, far) if field in mtus}
        for finding in check_mtus(together):
            yield fault(near, finding.line)


class PortInterfaces:
    """The interfaces of the ports of one manager, and their settings before.

    Args:
        folder: folder for the notes; the user's managers share it.
        kinds: port kinds by scheme.
    """

    def __init__(self, folder: Path, kinds: Mapping[str, PortKind]) -> None:
        self._folder = folder
        self._kinds = kinds
        self._settings: KeptSettings | None = None
        self._names: dict[str, str] = {}
        if folder.is_dir() and any(folder.iterdir()):
            from onvm_core.interfaces.settings import restore_abandoned

            for name in restore_abandoned(folder):
                log.info("restored the settings of %s, which a killed manager had used", name)

    @contextmanager
    def opening(
        self, port: str, uri: PortUri, *, file: str | None, field: str | None
    ) -> Iterator[None]:
        """Prepare the interface of a port that is opened in the context.

        Raises:
            ConfigError: it cannot be prepared.
        """
        use = _use(uri, self._kinds)
        if use is None:
            yield
            return
        from onvm_core.interfaces.settings import KeptSettings, SettingsError

        if self._settings is None:
            self._settings = KeptSettings(self._folder)
        try:
            self._settings.keep(uri.target, use)
        except SettingsError as error:
            raise ConfigError(str(error), file=file, field=field, value=uri.text) from None
        try:
            yield
        except BaseException:
            self._settings.restore(uri.target)
            raise
        self._settings.settle(uri.target)
        self._names[port] = uri.target

    def link_layer(self, uri: PortUri) -> tuple[int, bytes]:
        """MTU and MAC address of the interface of an open port; 0 and b"" if it has none."""
        folder = Path("/sys/class/net", uri.target)
        if not uri.target or "/" in uri.target or _use(uri, self._kinds) is None:
            return 0, b""
        try:
            mtu = int((folder / "mtu").read_text(encoding="ascii"))
            mac = bytes.fromhex((folder / "address").read_text(encoding="ascii").replace(":", ""))
        except (OSError, ValueError):  # it has gone, or has no Ethernet frames
            return 0, b""
        return mtu, mac[:6]

    def closed(self, port: str) -> None:
        """Restore the interface of a port that is closed."""
        name = self._names.pop(port, None)
        if name is not None and self._settings is not None:
            self._settings.restore(name)

    def close(self) -> None:
        """Restore all interfaces; the ports are closed."""
        self._names.clear()
        if self._settings is not None:
            self._settings.restore_all()


def _use(uri: PortUri, kinds: Mapping[str, PortKind]) -> InterfaceUse | None:
    kind = kinds.get(uri.scheme)
    return None if kind is None else kind.interface


def _option(uri: PortUri, kinds: Mapping[str, PortKind], name: str, default: int) -> int:
    try:
        return int(getattr(kinds[uri.scheme].read_options(uri.options), name, default))
    except ConfigError:
        return default  # opening the port reports it
