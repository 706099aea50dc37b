"""A long-lived manager: deployment, supervisor and control socket, and the handling of requests."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onvm_core.dataplane.interface import StartDataPlane
from onvm_core.export.report import Report
from onvm_core.launch.launcher import DEFAULT_LAUNCHER
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.directory import DirectoryLock, check_socket_paths
from onvm_core.manager.captures.capture_set import Captures
from onvm_core.manager.cluster_tables.tables import ClusterTables
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.extensions import Extensions
from onvm_core.manager.config.nf_config import NfSettings
from onvm_core.manager.config.onvm_toml import Config, NfConfig
from onvm_core.manager.config.plan import make_plan
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.interfaces import (
    INTERFACES,
    PortInterfaces,
    check_ports,
    open_port_warnings,
)
from onvm_core.manager.nf_failure import NfFailed
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_core.manager.placement.busy import busy_notes
from onvm_core.manager.ports import PortKind, cards_of, check_uris
from onvm_core.manager.service.automation import Automation
from onvm_core.manager.service.chain_requests import ChainRequests
from onvm_core.manager.service.change import Changes, open_port_of
from onvm_core.manager.service.event_log import EventLog
from onvm_core.manager.service.nf_tables import NfTables
from onvm_core.manager.service.questions import Questions
from onvm_core.manager.service.reload import Reload
from onvm_core.manager.service.slow_path import SlowPaths
from onvm_core.manager.service.state_requests import StateRequests
from onvm_core.manager.startup import early_start, times
from onvm_core.manager.startup.environment import split_cpus
from onvm_core.manager.supervision.fusion import Fusion
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_sdk.errors import ConfigError
from onvm_sdk.source import is_source

if TYPE_CHECKING:
    from onvm_core.manager.api.server import ControlServer

__all__ = ["Service"]

log = logging.getLogger("onvm.service")

SOURCES_WAIT_S = 10.0
CONTROL_WAIT_S = 0.05
"""Commands are answered when packets flow, or this long after the start if NFs take longer. Loading
the code for commands takes as long as most of a manager's start.
"""


class Service:
    """One ``onvm up``. A context manager; `run` serves until told to end.

    Args:
        directory: directory of the manager; its name is the manager's name.
        file: the checked file, with everything that it names.
        read: reads and checks a file, for a reload.
        start_plane: makes the data plane.
    """

    def __init__(
        self,
        directory: Path,
        file: Checked,
        read: Callable[[Path], Checked],
        start_plane: StartDataPlane = early_start.start_plane,
    ) -> None:
        config, extensions = file.config, file.extensions
        self._directory = directory
        self._nfs = NfTables(directory, file)
        self._launchers = file.launchers
        self._state = "starting"
        self._ending = False
        self._keep_nfs = False
        self._flows = False
        self._last: Report | None = None
        self._n_adopted = 0
        self._past = EventLog()
        self._began = self._served_since = time.monotonic()
        self._handlers: dict[type, Callable[[Any], m.Reply]] = {
            m.StatusRequest: self._status,
            m.DownRequest: self._down,
            m.InstancesRequest: self._instances,
            m.NfRunRequest: self._nf_run,
            m.NfStopRequest: self._nf_stop,
            m.EventsRequest: self._past.read,
            m.AskRequest: self._ask,
            m.AnswersRequest: self._answers,
        }
        check_socket_paths(directory)
        self._lock = DirectoryLock(directory)
        try:
            interfaces = PortInterfaces(directory.parent / INTERFACES, file.kinds)
            # Before the data plane is needed: DPDK still starts, and sleeps for most of the time.
            check_uris(config.port_uses, file.kinds, file=str(file.path))
            self._port_warnings = check_ports(*self._wires, file=str(file.path))
            times.lap("interfaces")
            self._deployment = self._deploy(extensions, interfaces, start_plane)
        except BaseException:
            self._lock.release()
            raise
        self._control: ControlServer | None = None
        self._captures = Captures(self._deployment)
        self._slow_paths = SlowPaths(self._deployment, config, file.path)
        self._handlers |= {
            m.CaptureStartRequest: self._captures.start,
            m.CaptureReadRequest: self._captures.read,
            m.CaptureStopRequest: self._captures.stop,
        }
        self._supervisor = Supervisor(
            directory, self._deployment, self._publish, config.faults.ready_s
        )
        self._automation = Automation(
            directory.name,
            self._deployment,
            self._supervisor,
            config,
            extensions,
            self._publish,
        )
        self._cluster = ClusterTables(
            self._deployment,
            self._automation.bypass,
            lambda chain, action: self._publish(m.ChainEvent(name=chain, action=action)),
        )
        self._automation.peers, self._deployment.manager.on_notice = (
            self._cluster.peers,
            self._cluster.on_notice,
        )
        self._chains = ChainRequests(
            self._deployment,
            self._automation.bypass,
            self._cluster,
            config.chains,
            self._publish,
        )
        self._handlers[m.ChainListRequest] = self._chains.list_all
        self._handlers[m.ChainAddRequest] = self._chains.add
        self._handlers[m.ChainRemoveRequest] = self._chains.remove
        self._handlers[m.ChainShowRequest] = self._chains.show
        self._handlers[m.FlowListRequest] = self._chains.flows
        self._handlers[m.ClusterApplyRequest] = self._cluster.apply
        self._handlers[m.ClusterChangeRequest] = self._cluster.change
        self._handlers[m.ClusterLocalRequest] = self._cluster.local
        self._handlers[m.ScaleRequest] = self._automation.scaling.set_count
        self._handlers[m.ScaleStatusRequest] = self._automation.scaling.status
        changes = Changes(
            self._deployment, self._supervisor, self._nfs, self._chains, self._automation
        )
        self._reload = Reload(
            changes,
            self._supervisor,
            self._nfs,
            read,
            lambda: self._state == "ready",
            self._cluster.local_hosts.hold_back,
        )
        questions = Questions(self._deployment.manager, self._known_instances)
        states = StateRequests(self._deployment, self._supervisor, self._cluster)
        self._handlers |= {**self._reload.handlers, **questions.handlers, **states.handlers}
        self._deployment.on_host_change = self._on_host_change
        times.lap("wiring")

    @property
    def _config(self) -> Config:
        return self._nfs.file.config

    @property
    def reload_soon(self) -> Callable[[], None]:
        """Asks for a reload of the file; a signal handler may call it."""
        return self._reload.soon

    def _on_host_change(self, host: NfHost) -> None:
        self._cluster.on_host_change(host)
        self._automation.on_host_change(host)

    @property
    def _wires(self) -> tuple[Mapping[str, str], Mapping[str, PortKind], list[tuple[str, str]]]:
        """The ports, their kinds, and the pairs between which chains go."""
        return self._config.port_uris, self._nfs.file.kinds, self._config.port_pairs

    def _deploy(
        self, extensions: Extensions, interfaces: PortInterfaces, start_plane: StartDataPlane
    ) -> Deployment:
        uris = self._config.port_uris
        plane = self._config.dataplane
        settings = plane.settings(uris.values())
        deployment = Deployment(
            self._directory,
            settings,
            kinds=self._nfs.file.kinds,
            package=self._nfs.installed,
            launchers=self._launchers,
            placement=extensions.placement,
            ports_of=self._ports_of,
            output=self._directory / "output",
            worker_cpus=split_cpus(plane.workers, plane.cpus, uris.values())[0],
            cards=cards_of(uris, self._nfs.file.kinds, settings, file=str(self._nfs.file.path)),
            classifiers=extensions.classifiers,
            interfaces=interfaces,
            survives=True,
            start_plane=start_plane,
        )
        deployment.manager.use_fragments(self._nfs.file.fragments())
        return deployment

    def _ports_of(self, services: Sequence[str]) -> list[str]:
        """Services of the chains in the file, and of chains added since."""
        added = [
            port
            for chain in self._deployment.chains.by_name.values()
            if {*chain.services} & {*services}
            for port in (chain.near, chain.far)
        ]
        return [*self._config.ports_of(services), *added]

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the NFs, unless they must stay, and free everything."""
        self._automation.close()
        if not self._keep_nfs:
            self._supervisor.stop_all()
        self._captures.close()
        self._publish(m.ManagerEvent(state="down"))
        control, self._control = self._control, None  # no event is sent for hosts that end now
        try:
            if control is not None:
                control.close()
        finally:
            self._slow_paths.close()
            self._deployment.close()
            self._lock.release()

    # ---- running ----

    def start(self) -> None:
        """Open the ports, and start or adopt the NFs.

        Raises:
            ConfigError: a port or an NF cannot be set up as the file says.
        """
        groups = self._config.groups()
        for group in groups:
            self._launchers.get(
                group.launcher, file=self._nfs.file.path, field=f"{group.field}.launcher"
            )
        self._automation.fusion = Fusion(
            self._deployment,
            self._supervisor,
            [one for one in groups if one.is_auto],
            lambda group: self._nfs.want(group, is_by_command=True),
        )
        self._deployment.manager.set_affinities(self._nfs.affinities())
        self._deployment.plane.pause_sources(True)  # they can wait until their chains serve
        for name in self._config.ports:
            open_port_of(self._nfs.file, name, self._deployment)
        self._slow_paths.begin()
        times.lap("ports")
        for warning in (*self._launchers.warnings, *self._port_warnings):
            log.warning("%s", warning)
        if any(one.is_auto for one in groups):
            resources = self._deployment.resources
            plan = make_plan(
                self._config,
                self._nfs.packages,
                self._nfs.file.extensions.placement,
                resources.topology,
                resources.workers,
                self._nfs.file.path.absolute().parent,
            )
            groups = [one.group for one in plan.nfs]
        self._n_adopted = self._supervisor.adopt([self._nfs.want(one) for one in groups])
        self._nfs.sweep(nf.wanted for nf in self._supervisor.hosts)
        for note in self._busy_notes():
            log.warning("%s", note)
        self._lock.announce()
        times.lap("adopt")

    def _busy_notes(self) -> list[str]:
        """Notes about NF hosts that must sleep, because they share a CPU."""
        return busy_notes(self._deployment.resources) if self._config.dataplane.is_busy else []

    def run(self, should_stop: Callable[[], bool], on_ready: Callable[[], None]) -> Report:
        """Serve until `should_stop` or a request to end; return the last counters.

        Raises:
            NfFailed: an NF cannot start at all, while the manager starts.
        """
        self._served_since = time.monotonic()
        while not self._ending and not should_stop():
            self.turn(on_ready)
        if self._last is None:
            self._finish()
        assert self._last is not None
        return self._last

    def turn(self, on_ready: Callable[[], None]) -> None:
        """Handle events, and wait at most a moment for the next one.

        Raises:
            NfFailed: as in `run`.
        """
        is_busy = self._captures.turn() or (self._control and self._control.has_more)
        self._deployment.poll(0.0 if is_busy else self._automation.poll_s)
        self._hear()
        self._supervisor.turn()
        self._cluster.alarms.turn(time.monotonic())
        self._automation.turn()
        self._reload.turn()
        self._chains.add_pending()
        if self._state == "starting":
            self._check_start(on_ready)

    def _hear(self) -> None:
        """Serve commands, from the moment at which there is time for them."""
        if self._control is not None:
            self._control.turn()
        elif self._flows or time.monotonic() - self._served_since > CONTROL_WAIT_S:
            from onvm_core.manager.api.server import ControlServer

            self._control = ControlServer(
                self._directory, self._deployment.manager.selector, self.handle
            )

    def _publish(self, event: m.Event) -> None:
        """Remember an event, and send it to all subscribers, once there is a socket."""
        self._past.add(event)
        if self._control is not None:
            self._control.publish(event)

    def _check_start(self, on_ready: Callable[[], None]) -> None:
        failure = self._supervisor.first_failure()
        if failure and self._n_adopted == 0:
            raise NfFailed(self._nfs.with_place(failure))
        is_ready = not self._chains.has_pending and self._supervisor.all_active()
        waited_s = time.monotonic() - self._began
        if not self._flows and (is_ready or waited_s > SOURCES_WAIT_S):
            self._flows = True  # in the end without NF hosts that cannot start
            self._deployment.begin()
            self._deployment.plane.pause_sources(False)
            times.lap("attach")
        if is_ready and self._control is not None:
            self._state = "ready"
            self._publish(m.ManagerEvent(state="ready"))
            on_ready()

    def _finish(self) -> bool:
        seconds = self._deployment.elapsed_s
        is_drained = self._deployment.drain()
        self._last = self._deployment.report(seconds)
        return is_drained

    # ---- requests ----

    def handle(self, request: m.Request) -> m.Reply:
        """Carry out a request.

        Raises:
            OnvmError: it cannot be done; carries one line.
        """
        return self._handlers[type(request)](request)

    def _status(self, _request: m.StatusRequest) -> m.StatusReply:
        report, peers = self._deployment.report(), self._cluster.peers()
        hops, crossed = sum(nf.rx for nf in report.nfs), sum(peer.tx for peer in peers)
        return m.StatusReply(
            name=self._directory.name,
            pid=os.getpid(),
            version=version("onvm"),
            state=self._state,
            uptime_s=round(time.monotonic() - self._began, 3),
            launched=self._supervisor.launched(),
            chains=self._chains.all(),
            report=report,
            peers=peers,
            crossing=crossed / (hops + crossed) if peers and hops + crossed else None,
            exporters=self._automation.exporters(),
            warnings=[
                *self._launchers.warnings,
                *self._cluster.alarms.warnings(time.monotonic()),
                *self._busy_notes(),
                *open_port_warnings(*self._wires),
            ],
            startup=times.startup(),
        )

    def _down(self, request: m.DownRequest) -> m.DownReply:
        self._keep_nfs = request.keep_nfs
        self._ending = True
        is_drained = self._finish()
        assert self._last is not None
        return m.DownReply(is_drained=is_drained, report=self._last)

    def _instances(self, _request: m.InstancesRequest) -> m.InstancesReply:
        return m.InstancesReply(launched=self._supervisor.launched())

    def _nf_run(self, request: m.NfRunRequest) -> m.InstancesReply:
        self._reload.check_free("nf run")
        package = self._nfs.package(request.name)
        base = (package.service or "") if is_source(request.name) else request.name
        own = request.config
        settings = None if own is None else [self._settings_of(request.name, own)]
        taken = self._supervisor.instance_names()
        taken |= {one.name for _, one in self._deployment.manager.registry.instances()}
        if request.instance is not None:
            instance = f"{base}-{request.instance}"
            if instance in taken:
                raise ConfigError("expected one that does not run", field="nf run", value=instance)
        else:
            number = 1
            while (instance := f"{base}-{number}") in taken:
                number += 1
        table = self._config.nfs.get(request.name, NfConfig())
        launcher = request.launcher or table.launcher or DEFAULT_LAUNCHER
        self._launchers.get(launcher, field="--launcher")
        wanted = self._nfs.wanted(
            (request.name,), (instance,), launcher=launcher, settings=settings, is_by_command=True
        )
        return m.InstancesReply(launched=[self._supervisor.run(wanted)])

    def _settings_of(self, name: str, file: str) -> NfSettings:
        if not Path(file).is_file():
            raise ConfigError("expected a file that exists", field="--config", value=file)
        return self._nfs.read_from(name, Path(file))

    def _nf_stop(self, request: m.NfStopRequest) -> m.InstancesReply:
        stopped = self._supervisor.stop(request.name)
        if not stopped:
            # One that was started by hand and attached by itself.
            if self._deployment.stop_nf(request.name):
                return m.InstancesReply(launched=[])
            raise ConfigError(self._known_instances(), field="nf stop", value=request.name)
        return m.InstancesReply(launched=stopped)

    def _known_instances(self) -> str:
        names = sorted(one.name for _, one in self._deployment.manager.registry.instances())
        return f"expected an instance or a service ({', '.join(names) or 'nothing runs'})"

    def _ask(self, request: m.AskRequest) -> m.AskedReply:
        manager = self._deployment.manager
        targets = manager.registry.find(request.name)
        if not targets:
            raise ConfigError(self._known_instances(), field="send", value=request.name)
        question, count = manager.questions.ask(targets, request.message.encode())
        return m.AskedReply(question=question, count=count)

    def _answers(self, request: m.AnswersRequest) -> m.AnswersReply:
        answers, waiting = self._deployment.manager.questions.replies(request.question)
        return m.AnswersReply(answers=answers, waiting=waiting)
