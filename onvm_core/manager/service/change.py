"""Changes of ports, chains, instances and configurations, while packets flow.

A change is made whole or not at all. After it has been checked (`reload`), the steps are:

1. *Prepare*: new ports open and new instances start, but get no packets. NFs that serve prepare
   their new configurations. An NF that can only be replaced gets a new instance, too.
2. *Apply*, when all of that is ready: ports and chains change, then all NFs together.
3. *Clear up*: replaced and surplus instances hand their state over and end; ports close.

Up to the end of step 2 everything can be undone, and is if anything fails.

Threads: the manager's; `turn` advances it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import msgspec

from onvm_core.manager.api.config_messages import Difference
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.nf_config import NfSettings
from onvm_core.manager.config.onvm_toml import Config
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.placement.memory import needs_more
from onvm_core.manager.ports import parse_uri
from onvm_core.manager.service.automation import Automation
from onvm_core.manager.service.chain_requests import ChainRequests
from onvm_core.manager.service.nf_tables import NfTables
from onvm_core.manager.supervision.reconfiguration import Target
from onvm_core.manager.supervision.supervised import Supervised, WantedHost
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Change", "Changes", "Pair", "Step", "open_port_of", "ports_to_open", "tables_in"]

log = logging.getLogger("onvm.reload")

READY_TIMEOUT_S = 60.0

Pair = tuple[NfSettings, NfSettings]
"""A configuration before and after."""


class Step(Enum):
    """The steps of a change."""

    PREPARING = "preparing"
    APPLYING = "applying"
    UNDOING = "undoing"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class _Started:
    """A new NF host, and the one whose place it takes; None: it is an additional one."""

    new: Supervised
    old: Supervised | None


@dataclass(slots=True, eq=False)
class Change:
    """A change in progress, or the last one.

    Attributes:
        number: its number.
        file: the new file; None: only configurations change.
        settings: configurations before and after, by table.
        differences: what it changes, for people.
        is_dry: only prepared, to find mistakes.
        replaced: instances that can only be replaced.
        replaces: an instance that gets another name; "": none.
        avoided: names that it must not get.
    """

    number: int
    file: Checked | None
    settings: Mapping[str, Pair]
    differences: list[Difference]
    is_dry: bool = False
    replaces: str = ""
    avoided: frozenset[str] = frozenset()
    step: Step = Step.PREPARING
    error: str = ""
    replaced: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    started: list[_Started] = field(default_factory=list)
    undo: ExitStack = field(default_factory=ExitStack)
    since_s: float = 0.0
    prepare_ms: float = 0.0
    apply_ms: float = 0.0


class Changes:
    """Makes one change at a time.

    Attributes:
        last: the change in progress, or the last one.
    """

    def __init__(
        self,
        deployment: Deployment,
        supervisor: Supervisor,
        nfs: NfTables,
        chains: ChainRequests,
        automation: Automation,
    ) -> None:
        self._deployment = deployment
        self._supervisor = supervisor
        self._reconfiguration = supervisor.reconfiguration
        self._nfs = nfs
        self._chains = chains
        self._scaling = automation.scaling
        self.last: Change | None = None

    @property
    def is_going_on(self) -> bool:
        """True if a change is in progress."""
        return self.last is not None and self.last.step not in (Step.DONE, Step.FAILED)

    # ---- 1: prepare ----

    def begin(self, change: Change) -> None:
        """Begin a change that has been checked.

        Raises:
            OnvmError: it cannot be made; nothing has changed.
        """
        self.last = change
        change.since_s = time.monotonic()
        self._scaling.is_paused = True
        try:
            if change.file is not None and not change.is_dry:
                self._open_ports(change, change.file)
                self._start_groups(change, change.file)
            if change.replaces:
                self._replace(change)
            change.targets = list(self._targets(change))
            self._reconfiguration.begin(change.targets)
            change.undo.callback(self._reconfiguration.cancel)
        except OnvmError as error:
            self._fail(change, str(error))
            raise

    def _targets(self, change: Change) -> Iterator[Target]:
        """The NFs that get new configurations. A file leaves those alone that were started with a
        configuration of their own.
        """
        for nf in self._supervisor.hosts:
            for stage, table in enumerate(tables_in(nf.wanted)):
                if table not in change.settings or nf.is_stopping or nf.is_reserved:
                    continue
                settled, after = change.settings[table]
                before = self._current(nf.wanted, stage, settled)
                if before.path == settled.path or change.file is None:
                    manifest = self._nfs.package(table, change.file).manifest
                    more = manifest is not None and needs_more(
                        manifest, after.values, before.values
                    )
                    yield Target(nf, stage, after, before, more)

    def _current(self, wanted: WantedHost, stage: int, settled: NfSettings) -> NfSettings:
        """The configuration of an instance: that of its table, or its own."""
        path = wanted.configs.get(wanted.nfs[stage])
        if path is None or path == str(settled.path):
            return settled
        try:
            return self._nfs.read_from(tables_in(wanted)[stage], Path(path))
        except ConfigError:  # its file has gone, or has a mistake since
            return settled

    def _open_ports(self, change: Change, file: Checked) -> None:
        before = self._nfs.file
        for name in ports_to_open(before, file.config):
            if name not in before.config.ports:
                self._open(name, file)
                change.undo.callback(self._deployment.close_port, name)

    def _open(self, name: str, file: Checked) -> None:
        open_port_of(file, name, self._deployment)

    def _start_groups(self, change: Change, file: Checked) -> None:
        """Start the instances that the new file has in addition."""
        known = {group.instances for group in self._nfs.file.config.groups()}
        for group in file.config.groups():
            if group.instances in known:
                continue
            file.launchers.get(group.launcher, file=file.path, field=f"{group.field}.launcher")
            settings = [
                change.settings[name][1] if name in change.settings else self._nfs.read(name, file)
                for name in group.names
            ]
            wanted = self._nfs.wanted(
                group.names, group.instances, launcher=group.launcher, settings=settings, file=file
            )
            self._reserve(change, wanted, None)

    def _replace(self, change: Change) -> None:
        """Start an NF host of another name in the place of one."""
        nf = self._supervisor.find(change.replaces)
        if nf is None or nf.is_leaving:
            raise ConfigError(
                "expected an instance that this manager launched",
                field="nf replace",
                value=change.replaces,
            )
        change.replaced.extend(nf.wanted.instances)
        self._reserve(change, self._described(nf, change), nf)

    def _reserve(self, change: Change, wanted: WantedHost, old: Supervised | None) -> None:
        """Start an NF host that does not serve yet, under names that are free."""
        taken = self._supervisor.instance_names() | change.avoided
        bases = tables_in(wanted)
        number = 1
        while any(f"{base}-{number}" in taken for base in bases):
            number += 1
        if taken & set(wanted.instances):
            of_file = () if wanted.is_by_command else wanted.stands_for or wanted.instances
            names = tuple(f"{base}-{number}" for base in bases)
            wanted = msgspec.structs.replace(wanted, instances=names, stands_for=of_file)
        new = self._supervisor.reserve(msgspec.structs.replace(wanted, is_standby=False))
        change.started.append(_Started(new, old))
        change.undo.callback(self._supervisor.discard, new)

    # ---- running ----

    def turn(self) -> None:
        """Advance the change."""
        change = self.last
        if change is None or not self.is_going_on:
            return
        failure = self._reconfiguration.failure
        try:
            if failure is not None and self._reconfiguration.is_over:
                self._fail(change, str(failure))
            elif failure is not None:
                change.step = Step.UNDOING
            elif change.step is Step.PREPARING and self._reconfiguration.is_prepared:
                self._look(change)
            elif change.step is Step.APPLYING and self._reconfiguration.is_over:
                self._finish(change)
        except OnvmError as error:
            self._fail(change, str(error))

    def _look(self, change: Change) -> None:
        """Go on when all configurations are prepared, and all new instances ready."""
        known = {id(one.old) for one in change.started}
        for nf in self._reconfiguration.unable:
            if nf.is_leaving or id(nf) in known:
                continue
            if nf.wanted.instances[0] not in change.replaced:
                change.replaced.extend(nf.wanted.instances)
            if not change.is_dry:
                self._reserve(change, self._described(nf, change), nf)
        late = [one.new for one in change.started if not one.new.is_ready]
        if change.is_dry:
            change.prepare_ms = (time.monotonic() - change.since_s) * 1000
            change.undo.close()
            self._end(change, Step.DONE)
        elif any(nf.reason for nf in late):
            self._fail(change, next(nf.reason for nf in late if nf.reason))
        elif not late:
            self._apply(change)
        elif time.monotonic() - change.since_s > READY_TIMEOUT_S:
            name = "+".join(late[0].wanted.instances)
            self._fail(change, f"{name} was not ready within {READY_TIMEOUT_S:g} s")

    def _described(self, nf: Supervised, change: Change) -> WantedHost:
        """The description of an NF host with its new configurations."""
        new = {one.stage: one.after for one in change.targets if one.nf is nf}
        settings = [
            new[stage]
            if stage in new
            else self._current(nf.wanted, stage, self._nfs.settled(table))
            for stage, table in enumerate(tables_in(nf.wanted))
        ]
        return self._nfs.described(nf.wanted, settings)

    # ---- 2: apply ----

    def _apply(self, change: Change) -> None:
        now = time.monotonic()
        change.prepare_ms, change.since_s = (now - change.since_s) * 1000, now
        change.step = Step.APPLYING
        for one in change.started:
            if one.old is None or not one.old.wanted.is_standby:
                self._supervisor.take_in(one.new)
            else:
                self._supervisor.stand_by(one.new)
        if change.file is not None:
            self._change_wires(change, change.file)
        for name, (before, after) in change.settings.items():
            self._nfs.settle(name, after)
            change.undo.callback(self._nfs.settle, name, before)
        for nf in {id(one.nf): one.nf for one in change.targets}.values():
            change.undo.callback(self._supervisor.change, nf, nf.wanted)
            self._supervisor.change(nf, self._described(nf, change))
        self._reconfiguration.apply()
        self.turn()

    def _change_wires(self, change: Change, file: Checked) -> None:
        """Let ports and chains be as in the file; `undo` brings all of it back."""
        before = self._nfs.file
        old, new = before.config, file.config
        changed = [name for name in ports_to_open(before, new) if name in old.ports]
        kept = [name for name in new.ports if name in old.ports]
        use_classifiers = self._deployment.chains.use_classifiers
        change.undo.callback(self._chains.change, dict(self._chains.wanted))
        self._chains.detach(changed)
        for name in changed:
            self._deployment.close_port(name)
            change.undo.callback(self._open, name, before)
            self._open(name, file)
            change.undo.callback(self._deployment.close_port, name)
        change.undo.callback(self._chains.detach, changed)
        for name in kept:
            link = old.ports[name].link(name)
            if name not in changed and new.ports[name].link(name) != link:
                self._deployment.change_link(name, new.ports[name].link(name))
                change.undo.callback(self._deployment.change_link, name, link)
        change.undo.callback(self._deployment.manager.use_fragments, before.fragments())
        self._deployment.manager.use_fragments(file.fragments())
        use_classifiers(file.extensions.classifiers, ())
        change.undo.callback(use_classifiers, before.extensions.classifiers, kept)
        self._chains.change(new.chains)
        use_classifiers(
            file.extensions.classifiers,
            [name for name in kept if _classifier_of(old, name) != _classifier_of(new, name)],
        )
        self._check_unused([name for name in old.ports if name not in new.ports], file.path)

    def _check_unused(self, ports: Sequence[str], path: Path) -> None:
        """Check that no chain has ports that the file has no more: one added by command may."""
        for chain in self._deployment.chains.by_name.values():
            for port in (chain.near, chain.far):
                if port in ports:
                    raise ConfigError(
                        f"expected this port: chain {chain.name}, added by command, has it",
                        file=path,
                        field="ports",
                        value=port,
                    )

    # ---- 3: clear up ----

    def _finish(self, change: Change) -> None:
        change.apply_ms = (time.monotonic() - change.since_s) * 1000
        change.undo.pop_all()
        before, file = self._nfs.file, change.file or self._nfs.file
        for one in change.started:
            if one.old is not None:
                self._retire(one.old, one.new, file.config.scale)
        self._drop_groups(before.config, file.config)
        for name in before.config.ports.keys() - file.config.ports.keys():
            self._deployment.close_port(name)
        self._scaling.change(file.config.scale, file.extensions.policies)
        self._nfs.use(file)
        self._deployment.manager.set_affinities(self._nfs.affinities())
        self._nfs.sweep(nf.wanted for nf in self._supervisor.hosts)
        self._end(change, Step.DONE)
        for difference in change.differences:
            log.info("%s %s", difference.place, difference.action)
        log.info("prepared in %.0f ms, applied in %.1f ms", change.prepare_ms, change.apply_ms)

    def _retire(self, old: Supervised, new: Supervised, scale: Mapping[str, ScaleConfig]) -> None:
        """Let a replaced NF host hand its state over and end."""
        usual = scale.get(old.wanted.services[0]) or ScaleConfig()
        if old.is_serving and old.host is not None and new.host is not None:
            self._supervisor.drains.drain_host(
                old.host, [new.host], usual.drain_s, usual.handover_ms / 1000
            )
        else:
            self._supervisor.discard(old)

    def _drop_groups(self, before: Config, after: Config) -> None:
        """Let instances drain that the new file has no more."""
        dropped = {one.instances for one in before.groups()}
        dropped -= {one.instances for one in after.groups()}
        tables = before.nfs.keys() - after.nfs.keys()
        for nf in self._supervisor.hosts:
            names = nf.wanted.stands_for or nf.wanted.instances
            if nf.is_leaving or (names not in dropped and not tables & set(tables_in(nf.wanted))):
                continue
            usual = after.scale.get(nf.wanted.services[0]) or ScaleConfig()
            self._supervisor.drains.drain_one(nf, usual.drain_s, usual.handover_ms / 1000)

    def _end(self, change: Change, step: Step) -> None:
        change.step = step
        self._scaling.is_paused = False

    def _fail(self, change: Change, error: str) -> None:
        change.error = error
        log.error("nothing is changed: %s", error)
        try:
            change.undo.close()
        except OnvmError as mistake:
            log.error("not everything is as before: %s", mistake)
        self._nfs.sweep(nf.wanted for nf in self._supervisor.hosts)
        self._end(change, Step.FAILED)


def open_port_of(file: Checked, name: str, deployment: Deployment) -> None:
    """Open a port as a file says.

    Raises:
        ConfigError: it cannot be opened; carries the field of the file.
    """
    place = {"file": str(file.path), "field": f"ports.{name}.uri"}
    port = file.config.ports[name]
    try:
        deployment.open_port(
            name, port.uri, file.config.direction(name), link=port.link(name), **place
        )
    except ConfigError as error:
        if error.file is not None:
            raise
        raise ConfigError(error.expected, **place, value=error.value) from None


def tables_in(wanted: WantedHost) -> tuple[str, ...]:
    """The tables of the instances of an NF host: instances are named after them."""
    return tuple(name.rpartition("-")[0] for name in wanted.instances)


def ports_to_open(before: Checked, after: Config) -> list[str]:
    """Ports that are new, or must be opened again because their options change."""

    def is_other(name: str) -> bool:
        old, new = before.config.ports[name], after.ports[name]
        kind = before.kinds.get(parse_uri(new.uri).scheme)
        is_directed = kind is None or kind.interface is None
        turned = after.direction(name) != before.config.direction(name)
        return old.uri != new.uri or (is_directed and turned)

    return [name for name in after.ports if name not in before.config.ports or is_other(name)]


def _classifier_of(config: Config, port: str) -> tuple[str, object]:
    return config.ports[port].classifier, config.ports[port].classifier_options
