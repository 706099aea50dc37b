"""Interfaces of the kernel that ports use: checked before, changed while a port is open, restored.

A start without such ports, of which most tests are, does not load the code behind this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onvm_core.interfaces.use import InterfaceUse
from onvm_core.manager.ports import PortKind, PortUri, parse_uri
from onvm_sdk.errors import ConfigError

if TYPE_CHECKING:
    from onvm_core.interfaces.settings import KeptSettings

__all__ = ["PortInterfaces", "check_ports"]

log = logging.getLogger("onvm.interfaces")


def check_ports(
    uris: Mapping[str, str],
    kinds: Mapping[str, PortKind],
    pairs: Iterable[tuple[str, str]] = (),
    *,
    file: str | None = None,
) -> list[str]:
    """Check the interfaces of ports; return the warnings.

    Args:
        uris: URIs of ports, by the fields in which they stand.
        pairs: fields of ports between which packets go.

    Raises:
        ConfigError: packets cannot pass an interface.
    """
    parsed = {field: parse_uri(uri, file=file, field=field) for field, uri in uris.items()}
    used = {field: uri for field, uri in parsed.items() if _use(uri, kinds) is not None}
    if not used:
        return []
    from onvm_core.interfaces.checks import Severity, check_interface, check_mtus, missing_line
    from onvm_core.interfaces.facts import Snapshot

    snapshot = Snapshot()
    host = snapshot.host()
    mtus: dict[str, int] = {}
    warnings = []
    for field, uri in used.items():
        link = snapshot.find(uri.target)
        if link is None:
            raise ConfigError(
                missing_line(uri.target, host), file=file, field=field, value=uri.text
            )
        use, mtu = _use(uri, kinds), _mtu(uri, kinds)
        assert use is not None
        mtus[field] = mtu or link.mtu
        for finding in check_interface(snapshot.facts(link), host, use, mtu):
            if finding.severity is Severity.ERROR:
                raise ConfigError(finding.line, file=file, field=field, value=uri.text)
            if finding.severity is Severity.WARNING:
                warnings.append(f"{field}: {uri.text!r}: {finding.line}")
    for pair in pairs:
        together = {used[field].target: mtus[field] for field in pair if field in used}
        warnings += [f"{pair[0]}: {finding.line}" for finding in check_mtus(together)]
    return list(dict.fromkeys(warnings))


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


def _mtu(uri: PortUri, kinds: Mapping[str, PortKind]) -> int:
    try:
        return int(getattr(kinds[uri.scheme].read_options(uri.options), "mtu", 0))
    except ConfigError:
        return 0  # opening the port reports it
