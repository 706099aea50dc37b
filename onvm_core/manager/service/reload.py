"""Requests that change the manager's file, or the configuration of a service.

The file is read and compared with the one in use. A mistake anywhere, or a difference that only a
restart can make, ends the request. `change` does the rest.

Threads: the manager's; `turn` advances a change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.config_messages import (
    ChangeReply,
    ChangeStateRequest,
    ReconfigureRequest,
    ReloadRequest,
)
from onvm_core.manager.api.state_messages import NfReplaceRequest
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.interfaces import check_ports
from onvm_core.manager.ports import check_uris, parse_uri
from onvm_core.manager.service.change import (
    Change,
    Changes,
    Pair,
    Step,
    ports_to_open,
    tables_in,
)
from onvm_core.manager.service.difference import check_fixed, difference
from onvm_core.manager.service.nf_tables import NfTables
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Reload"]

log = logging.getLogger("onvm.reload")


class Reload:
    """Checks changes, and begins them.

    Args:
        read: reads and checks a file.
        is_ready: tells whether the manager has started.
        hold_back: lets an instance have no new flows until the cluster knows it.
    """

    def __init__(
        self,
        changes: Changes,
        supervisor: Supervisor,
        nfs: NfTables,
        read: Callable[[Path], Checked],
        is_ready: Callable[[], bool],
        hold_back: Callable[[str], None],
    ) -> None:
        self._changes = changes
        self._supervisor = supervisor
        self._nfs = nfs
        self._read = read
        self._is_ready = is_ready
        self._hold_back = hold_back
        self._is_asked = False
        self._number = 0
        self.handlers: dict[type, Callable[[Any], m.Reply]] = {
            ReloadRequest: self.reload,
            ReconfigureRequest: self.reconfigure,
            ChangeStateRequest: self.state,
            NfReplaceRequest: self.replace,
        }

    def soon(self) -> None:
        """Reload the file at the next turn; a signal handler may call it."""
        self._is_asked = True

    def turn(self) -> None:
        """Advance the change, and begin one that a signal has asked for."""
        if self._is_asked and self._is_ready() and not self._changes.is_going_on:
            self._is_asked = False
            try:
                self.reload(ReloadRequest())
            except OnvmError as error:
                log.error("nothing is changed: %s", error)
        self._changes.turn()

    def check_free(self, field: str) -> None:
        """Check that no change is in progress.

        Raises:
            ConfigError: one is.
        """
        if self._changes.is_going_on:
            raise ConfigError("expected no reload in progress", field=field)

    # ---- requests ----

    def reload(self, request: ReloadRequest) -> ChangeReply:
        """Begin to make everything as a file says."""
        self._check_ready("reload")
        before = self._nfs.file
        after = self._read(before.path if request.path is None else Path(request.path))
        check_fixed(before.config, after.config, after.path)
        _check_new_ports(before, after)
        settings = self._changed_settings(after)
        changes = difference(before.config, after.config, settings)
        self._number += 1
        return self._begin(Change(self._number, after, settings, changes, request.dry_run))

    def reconfigure(self, request: ReconfigureRequest) -> ChangeReply:
        """Begin to give all instances of a service or of a table another configuration."""
        self._check_ready("nf config")
        tables = self._tables_of(request.name)
        if not tables:
            serving = {name for nf in self._supervisor.hosts for name in nf.wanted.services}
            raise ConfigError(
                f"expected a service with an instance ({', '.join(sorted(serving)) or 'none'})",
                field="nf config",
                value=request.name,
            )
        settings = {
            name: (self._nfs.settled(name), self._nfs.read_from(name, Path(request.path)))
            for name in tables
        }
        config = self._nfs.file.config
        changes = difference(config, config, settings)
        self._number += 1
        return self._begin(Change(self._number, None, settings, changes))

    def replace(self, request: NfReplaceRequest) -> ChangeReply:
        """Begin to replace an instance by one of another name."""
        self._check_ready("nf replace")
        self._hold_back(request.name)
        self._number += 1
        return self._begin(
            Change(
                self._number,
                None,
                {},
                [],
                replaces=request.name,
                avoided=frozenset(request.avoided),
            )
        )

    def state(self, request: ChangeStateRequest) -> ChangeReply:
        """Tell the progress of the last change."""
        change = self._changes.last
        if change is None or change.number != request.number:
            raise ConfigError("expected the last change", field="number", value=request.number)
        return _show(change)

    def _begin(self, change: Change) -> ChangeReply:
        self._changes.begin(change)
        return _show(change)

    # ---- checks ----

    def _check_ready(self, field: str) -> None:
        self.check_free(field)
        if not self._is_ready():
            raise ConfigError("expected a manager that is ready; see: onvm status", field=field)

    def _changed_settings(self, after: Checked) -> Mapping[str, Pair]:
        """Configurations that differ, by table: those of the file, and of instances by command."""
        before = self._nfs.file.config.nfs
        tables = {table for nf in self._supervisor.hosts for table in tables_in(nf.wanted)}
        found = {}
        for name in sorted(tables | (before.keys() & after.config.nfs.keys())):
            if name in before and name not in after.config.nfs:
                continue  # it goes
            old, new = self._nfs.settled(name), self._nfs.read(name, after)
            if new.content != old.content or new.path != old.path:
                found[name] = old, new
        return found

    def _tables_of(self, name: str) -> list[str]:
        found = {
            table
            for nf in self._supervisor.hosts
            for table, service in zip(tables_in(nf.wanted), nf.wanted.services, strict=True)
            if name in (table, service)
        }
        return sorted(found)


def _check_new_ports(before: Checked, after: Checked) -> None:
    """Check ports that are to be opened, as a start does.

    Raises:
        ConfigError: one cannot be opened, or only at a start.
    """
    check_uris(after.config.port_uses, after.kinds, file=str(after.path))
    names = ports_to_open(before, after.config)
    uris = {f"ports.{name}.uri": after.config.ports[name].uri for name in names}
    for name, (place, text) in zip(names, uris.items(), strict=True):
        uri = parse_uri(text, file=str(after.path), field=place)
        old = before.config.ports.get(name)
        is_same_card = old is not None and parse_uri(old.uri).target == uri.target
        if after.kinds[uri.scheme].needs_pci and not is_same_card:
            raise ConfigError(
                "expected a port without a card: the manager takes hold of cards when it starts",
                file=after.path,
                field=place,
                value=text,
            )
    for warning in check_ports(uris, after.kinds, file=str(after.path)):
        log.warning("%s", warning)


def _show(change: Change) -> ChangeReply:
    step = Step.APPLYING if change.step is Step.UNDOING else change.step
    return ChangeReply(
        number=change.number,
        step=step.value,
        changes=change.differences,
        replaced=change.replaced,
        error=change.error,
        prepare_ms=round(change.prepare_ms, 1),
        apply_ms=round(change.apply_ms, 1),
    )
