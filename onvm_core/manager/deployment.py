"""A deployment: a manager with its ports, chains and launched NFs, as a user asked for it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import msgspec

from onvm_core.dataplane.interface import DataPlane, StartDataPlane
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.export.report import Report
from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import (
    DEFAULT_LAUNCHER,
    Handle,
    Launcher,
    Launchers,
    LaunchSpec,
)
from onvm_core.launch.limits import LimitMode, Limits
from onvm_core.launch.process import ProcessLauncher
from onvm_core.manager.chains.chains import Chains
from onvm_core.manager.chains.classifier import Classifier
from onvm_core.manager.cluster_view.view import LocalResources
from onvm_core.manager.interfaces import INTERFACES, PortInterfaces
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_facts import files_read, permissions_of, services_of
from onvm_core.manager.nf_failure import MISTAKE, NfFailed, is_failure, last_words
from onvm_core.manager.nf_hosts.codec import PortEntry, PortLink
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.nf_hosts.stack import place_of_hang
from onvm_core.manager.placement.allocator import CpuAllocator
from onvm_core.manager.placement.memory import sized_by
from onvm_core.manager.placement.policy import Decision, FreeResources, Need, PlacementPolicy
from onvm_core.manager.placement.topology import read_topology
from onvm_core.manager.ports import Direction, PortKind, open_port, parse_uri
from onvm_core.manager.reporting import buffer_report, cpu_seconds, make_report, retire_dead
from onvm_core.manager.startup import early_start
from onvm_core.manager.startup.environment import split_cpus
from onvm_core.plugins import NfPackage
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Deployment"]

log = logging.getLogger("onvm.deployment")

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0
DRAIN_TIMEOUT_S = 5.0
POLL_S = 0.02
DEAD_KEPT = 32


@dataclass(slots=True)
class _Launched:
    handle: Handle
    services: tuple[str, ...]
    is_reported: bool = False
    asked_to_stop: bool = False


@dataclass(slots=True)
class _OpenPort:
    number: int
    uri: str
    mtu: int = 0
    mac: bytes = b""
    link: PortLink | None = None


@dataclass(slots=True)
class _State:
    ports: dict[str, _OpenPort] = field(default_factory=dict)
    launched: list[_Launched] = field(default_factory=list)


class Deployment:
    """A context manager around a `Manager`.

    Args:
        directory: directory of its sockets and logs.
        kinds: port kinds by scheme.
        output: a folder for those into which NFs may write files; None: they have none.
        package: gives an installed NF by its name; None if there is none.
        launchers: launchers that NFs may be launched with.
        placement: chooses the CPUs that they run on.
        ports_of: names of the ports whose packets services get; None: all ports.
        classifiers: classifiers of the ports that have their own.
        interfaces: the interfaces of ports; None: make them.
        survives: True if launched NFs wait for a new manager when this one is gone.
        start_plane: makes the data plane.
    """

    def __init__(
        self,
        directory: Path,
        settings: DataplaneSettings,
        *,
        kinds: Mapping[str, PortKind],
        package: Callable[[str], NfPackage | None],
        launchers: Launchers,
        placement: PlacementPolicy,
        ports_of: Callable[[Sequence[str]], Sequence[str]] | None = None,
        output: Path | None = None,
        worker_cpus: Sequence[int] | None = None,
        cards: Sequence[str] | None = None,
        classifiers: Mapping[str, Classifier] | None = None,
        interfaces: PortInterfaces | None = None,
        survives: bool = False,
        start_plane: StartDataPlane = early_start.start_plane,
    ) -> None:
        workers, _ = split_cpus(settings.n_workers, worker_cpus or ())
        self._directory = directory
        self._output = output
        self._kinds = kinds
        self._package = package
        self._launchers = launchers
        self._survives = survives
        self._placement = placement
        self._ports_of = ports_of or (lambda _services: list(self._state.ports))
        self._n_launched = 1
        self._peers: dict[str, int] = {}
        self.remote_services: set[str] = set()
        self._state = _State()
        self._begin = time.monotonic()
        self._interfaces = interfaces or PortInterfaces(directory.parent / INTERFACES, kinds)
        self.manager = Manager(directory, settings, workers, cards=cards, start_plane=start_plane)
        self.manager.on_host_change = self._on_host_change
        self.chains = Chains(self.manager, self.port_number, classifiers)
        self.on_host_change: Callable[[NfHost], None] = lambda host: None
        (directory / "logs").mkdir(exist_ok=True)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def plane(self) -> DataPlane:
        """The data plane."""
        return self.manager.plane

    @property
    def ports(self) -> dict[str, str]:
        """URI of each open port by name."""
        return {name: port.uri for name, port in self._state.ports.items()}

    # ---- ports and chains ----

    def open_port(
        self,
        name: str,
        uri: str,
        direction: Direction,
        *,
        link: PortLink | None = None,
        file: str | None = None,
        field: str | None = None,
    ) -> None:
        """Open a port under a name."""
        if name in self._state.ports:
            raise ConfigError(
                "expected a name that no open port has", file=file, field=field, value=name
            )
        parsed = parse_uri(uri, file=file, field=field)
        with self._interfaces.opening(name, parsed, file=file, field=field):
            number = open_port(
                self.plane, parsed, name, direction, self._kinds, file=file, field=field
            )
        mtu, mac = self._interfaces.link_layer(parsed)
        self._state.ports[name] = _OpenPort(number, uri, mtu, mac, link)
        self._show_ports()

    def mac_of(self, name: str) -> bytes:
        """MAC address of the interface of an open port; b"" if it has none."""
        return self._state.ports[name].mac

    def change_link(self, name: str, link: PortLink | None) -> None:
        """Change what NFs are told of the link behind a port."""
        self._state.ports[name] = replace(self._state.ports[name], link=link)
        self._show_ports()

    def take_port(self, name: str, number: int, uri: str) -> None:
        """Show a port that was opened elsewhere as one of the manager's ports."""
        self._state.ports[name] = _OpenPort(number, uri)

    def close_port(self, name: str) -> None:
        """Close a port that no chain uses."""
        self.plane.close_port(self._state.ports.pop(name).number)
        self._interfaces.closed(name)
        self._show_ports()

    def _show_ports(self) -> None:
        self.manager.show_ports(
            [
                PortEntry(name, port.number, port.mtu, port.mac, port.link)
                for name, port in self._state.ports.items()
            ]
        )

    def remote_ports_of(self, peer: str, number: int | None) -> None:
        """Let chains end at ports of a peer, named HOST:PORT; None: no longer."""
        if number is None:
            self._peers.pop(peer, None)
        else:
            self._peers[peer] = number

    def port_number(self, name: str) -> int:
        """ID of an open port, or of a port of a peer.

        Raises:
            ConfigError: there is no port of that name.
        """
        port = self._state.ports.get(name)
        if port is None and name.partition(":")[0] in self._peers:
            return self._peers[name.partition(":")[0]]
        if port is None:
            known = ", ".join(self._state.ports) or "none is open"
            raise ConfigError(f"expected a port ({known})", field="port", value=name)
        return port.number

    # ---- NFs ----

    def launch(
        self,
        nfs: Sequence[str],
        *,
        configs: Mapping[str, Path] | None = None,
        instances: Sequence[str] = (),
        services: Sequence[str] | None = None,
        secret: str | None = None,
        launcher: str = DEFAULT_LAUNCHER,
    ) -> Handle:
        """Start an NF host for `nfs`; several are fused. It serves when it has attached.

        Args:
            services: their service types, if they differ from those of the installed NFs.
            secret: the secret it attaches with; None: make one.
            launcher: name of the launcher.

        Raises:
            ConfigError: there is no such launcher, or it cannot work here.
            NoResourcesError: there are no free resources for it.
            NfFailed: it cannot be started.
        """
        starter = self._launchers.get(launcher)
        packages = [self._package(name) for name in nfs]
        services = tuple(services or services_of(nfs, packages))
        secret = secret or secrets.token_hex(16)
        used = {name: path for name, path in (configs or {}).items() if name in nfs}
        label = "+".join(instances) or f"{'+'.join(services)}-{self._n_launched}"
        files = files_read(packages, used)
        need = self._need(packages, services, used)
        decision = self._allocator.place(secret, label, need)
        log.info("%s on CPU %s: %s", label, ",".join(map(str, decision.cpus)), decision.reason)
        spec = LaunchSpec(
            nfs=tuple(nfs),
            attach_path=self.manager.attach_path,
            secret=secret,
            log_path=self._directory / "logs" / f"{label}.log",
            instances=tuple(instances),
            configs=used,
            files=files,
            folders=tuple(
                one.manifest_path.absolute().parent
                for one in packages
                if one is not None and one.manifest_path is not None
            ),
            cpus=decision.cpus,
            limits=self._limits(decision, need),
            survives_manager=self._survives,
            output=self._output_of(label),
            permissions=frozenset(
                permission for given in permissions_of(packages) for permission in given or ()
            ),
        )
        self._n_launched += 1
        self.manager.expect(secret, services, permissions_of(packages))
        try:
            handle = starter.launch(spec)
        except (OSError, OnvmError) as error:
            del self.manager.secrets[secret]
            self._allocator.release(secret)
            if isinstance(error, OnvmError):
                raise
            raise NfFailed(f"NF {label} cannot be started: {error}") from None
        self._state.launched.append(_Launched(handle, services))
        return handle

    def _output_of(self, label: str) -> Path | None:
        """The output folder of an NF host; files of an earlier instance of that name stay."""
        if self._output is None:
            return None
        folder = self._output.absolute() / label
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NfFailed(f"output folder {folder}: {error.strerror}", is_mistake=True) from None
        return folder

    def adopt(
        self,
        spec: LaunchSpec,
        process: ProcessId,
        services: Sequence[str],
        launcher: str = DEFAULT_LAUNCHER,
    ) -> Handle:
        """Take over an NF host that an earlier manager launched; it attaches by itself."""
        starter = self._launchers.get(launcher)
        packages = [self._package(name) for name in spec.nfs]
        need = self._need(packages, services, spec.configs)
        cpus = self._allocator.adopt(spec.secret, "+".join(spec.instances), need, process.pid)
        handle = starter.adopt(replace(spec, cpus=cpus), process)
        self.manager.expect(spec.secret, services, permissions_of(packages))
        self._state.launched.append(_Launched(handle, tuple(services)))
        return handle

    def end_earlier(self, spec: LaunchSpec, process: ProcessId | None, launcher: str) -> None:
        """End an NF host of an earlier manager, with every process that it has started.

        Args:
            process: None: it has ended already, and only its remains are removed.
        """
        try:
            starter: Launcher = self._launchers.get(launcher)
        except OnvmError as error:  # the plugin that launched it is gone, or the plugin's program
            log.warning("%s: %s", "+".join(spec.instances), error)
            starter = ProcessLauncher()
        if process is not None:
            starter.adopt(spec, process).kill()
        starter.clean(spec)

    def forget(self, handle: Handle) -> None:
        """Stop supervising an NF host that has ended."""
        self._state.launched = [one for one in self._state.launched if one.handle is not handle]
        self.manager.secrets.pop(handle.spec.secret, None)
        self._allocator.release(handle.spec.secret)

    @property
    def local_resources(self) -> LocalResources:
        """Resources that NF hosts can have here, and the free part of them."""
        return self._allocator.local

    @cached_property
    def _allocator(self) -> CpuAllocator:
        # Measured when the first NF host is launched: ports are open, and packet memory is taken.
        return CpuAllocator(self._placement, read_topology(self.ports), self.manager.worker_cpus)

    @property
    def resources(self) -> FreeResources:
        """CPUs and memory for NF hosts, and their allocation."""
        return self._allocator.resources

    def _need(
        self,
        packages: Sequence[NfPackage | None],
        services: Sequence[str],
        configs: Mapping[str, Path],
    ) -> Need:
        manifests = [
            sized_by(one.manifest, configs.get(one.name))
            for one in packages
            if one is not None and one.manifest
        ]
        return Need.of(manifests, self._allocator.node_of(self._ports_of(services)))

    def _limits(self, decision: Decision, need: Need) -> Limits | None:
        if self._launchers.limits is LimitMode.OFF:
            return None
        quota = need.cores if self._launchers.with_quota else None
        return Limits(decision.cpus, need.memory_mib, quota)

    def wait_ready(self, services: Sequence[str], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until each service has an active instance.

        Raises:
            NfFailed: an NF ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while missing := [name for name in services if not self.serves(name)]:
            self.poll(POLL_S)
            self.check_launched()
            if time.monotonic() > deadline:
                raise self._end_slow(missing[0], f"was not ready within {timeout_s:g} s")

    def _end_slow(self, service: str, why: str) -> NfFailed:
        """End the NF host that does not serve in time; return the failure."""
        for launched in self._state.launched:
            if service in launched.services and launched.handle.poll() is None:
                launched.is_reported = True
                launched.handle.kill()
                text = last_words(launched.handle, why)
                return NfFailed(text, launched.handle.spec.log_path)
        return NfFailed(f"NF {service} {why}")

    def serves(self, service: str, *, anywhere: bool = False) -> bool:
        """True if the service has an active instance; with `anywhere`, one at a peer counts too."""
        return (anywhere and service in self.remote_services) or any(
            host.state is HostState.ACTIVE and instance.service == service
            for host, instance in self.manager.registry.instances()
        )

    def check_launched(self) -> None:
        """Raise NfFailed for a launched NF that has ended by itself."""
        for launched in self._state.launched:
            status = launched.handle.poll()
            if status is None or launched.is_reported or launched.asked_to_stop:
                continue
            launched.is_reported = True
            raise NfFailed(
                last_words(launched.handle),
                launched.handle.spec.log_path,
                is_mistake=status == MISTAKE,
            )

    def check_ended(self, timeout_s: float) -> None:
        """Wait for the processes of NF hosts that are gone, and raise as `check_launched`."""
        dead = {host.secret for host in self.manager.registry.hosts if host.state is HostState.DEAD}
        gone = [one for one in self._state.launched if one.handle.spec.secret in dead]
        deadline = time.monotonic() + timeout_s
        while any(one.handle.poll() is None for one in gone) and time.monotonic() < deadline:
            self.poll(POLL_S)
        self.check_launched()

    def place_of_hang(self, host: NfHost) -> str:
        """The line of an NF host that hangs, as `stack.place_of_hang` gives it."""
        for launched in self._state.launched:
            if launched.handle.spec.secret == host.secret:
                return place_of_hang(host.pid, launched.handle.spec.log_path)
        return ""

    def end_hung(self, host: NfHost, reason: str) -> NfFailed:
        """End an NF host that hangs; return the failure."""
        reason += self.place_of_hang(host)
        self.manager.attach.detach(host.slot, reason)
        for launched in self._state.launched:
            if launched.handle.spec.secret == host.secret:
                launched.is_reported = True
                launched.handle.kill()
                spec = launched.handle.spec
                return NfFailed(
                    f"NF {'+'.join(spec.nfs)} hangs: {reason} (log: {spec.log_path})", spec.log_path
                )
        return NfFailed(f"NF {'+'.join(host.services)} hangs: {reason}")

    def stop_nf(self, name: str) -> int:
        """Let the hosts of an instance or service finish and leave; return how many there were."""
        hosts = {id(host): host for host, _ in self.manager.registry.find(name)}
        for host in hosts.values():
            self.stop_host(host)
        return len(hosts)

    def stop_host(self, host: NfHost, successor: int = 0) -> None:
        """Let an NF host finish the packets it holds, and leave.

        Args:
            successor: as in `Manager.stop_host`.
        """
        for launched in self._state.launched:
            if launched.handle.spec.secret == host.secret:
                launched.asked_to_stop = True
        self.manager.stop_host(host, successor)

    def replace(self, nf: str, *, configs: Mapping[str, Path], launcher: str) -> str:
        """Start another host of an NF that runs alone, and stop the ones it has when it serves.

        Returns:
            Why it did not serve; then the others stay. "" if it does.
        """
        package = self._package(nf)
        services = services_of([nf], [package])
        before = {id(host): host for host, _ in self.manager.registry.find(services[0])}
        try:
            handle = self.launch([nf], configs=configs, launcher=launcher)
        except OnvmError as error:
            return str(error)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not any(
            host.secret == handle.spec.secret and host.state is HostState.ACTIVE
            for host in self.manager.registry.hosts
        ):
            self.poll(POLL_S)
            if handle.poll() is None and time.monotonic() < deadline:
                continue
            handle.kill()
            for launched in self._state.launched:
                launched.is_reported |= launched.handle is handle
            return last_words(handle)
        for host in before.values():
            if host.state is not HostState.DEAD:
                self.stop_host(host)
        return ""

    def _on_host_change(self, host: NfHost) -> None:
        if host.state is HostState.DEAD:
            host.cpu_seconds = cpu_seconds(host.pid) or host.cpu_before
            retire_dead(self.plane, self.manager.registry, keep=DEAD_KEPT)
        self.on_host_change(host)

    # ---- running ----

    def poll(self, timeout_s: float) -> None:
        """Handle events for up to `timeout_s`."""
        self.manager.poll(timeout_s)

    def begin(self) -> None:
        """Count time and CPU time from now on."""
        self._begin = time.monotonic()
        for host in self.manager.registry.living():
            host.cpu_before = cpu_seconds(host.pid)

    @property
    def elapsed_s(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self._begin

    def received(self) -> int:
        """Packets received on all ports."""
        return sum(self.plane.read_port(port.number).rx for port in self._state.ports.values())

    def sent(self) -> int:
        """Packets sent on all ports."""
        return sum(self.plane.read_port(port.number).tx for port in self._state.ports.values())

    def report(self, seconds: float | None = None) -> Report:
        """All counters; rates are over `seconds`, or over the time since `begin`."""
        shown = {port.number: (name, port.uri) for name, port in self._state.ports.items()}
        return make_report(self.manager, shown, seconds or self.elapsed_s)

    def has_fault(self) -> bool:
        """True if the file of a port cannot be read or written any more."""
        return any(self.plane.read_port(p.number).fault for p in self._state.ports.values())

    def is_drained(self) -> bool:
        """True if no packet is inside."""
        if any(self.plane.read_port(p.number).n_held for p in self._state.ports.values()):
            return False
        return not any(
            self.plane.read_host(host.slot).reserved for host in self.manager.registry.living()
        )

    def sources_finished(self) -> bool:
        """True if no port will ever receive again."""
        return all(self.plane.read_port(p.number).is_finished for p in self._state.ports.values())

    def drain(self, timeout_s: float = DRAIN_TIMEOUT_S) -> bool:
        """Stop the sources and wait until nothing is inside; return True if that was reached."""
        self.plane.pause_sources(True)
        self.manager.release_held()
        deadline = time.monotonic() + timeout_s
        quiet = 0
        while quiet < 3:
            self.poll(POLL_S / 4)
            quiet = quiet + 1 if self.is_drained() else 0
            if time.monotonic() > deadline:
                return False
        return True

    def finish(self, seconds: float) -> Report:
        """Stop everything and give the last report, in which no packet is inside any more.

        Packets that an NF still holds count as ``stopped``; captures are complete.
        """
        self.plane.stop()  # packets that a worker sends or drops after a report would be in none
        report = self.report(seconds)
        for name in list(self.chains.by_name):
            self.chains.remove(name)
        for port in self._state.ports.values():
            self.plane.close_port(port.number)
        self._state.ports.clear()
        self._interfaces.close()
        total = self.plane.read_plane()
        own = {reason: count for reason, count in total.drops.items() if count}
        return msgspec.structs.replace(
            report,
            drops=dict(sorted({**report.drops, **own}.items())),
            buffers=buffer_report(total),
        )

    def end_nfs(self) -> None:
        """Let all NFs end, with their teardown.

        Raises:
            NfFailed: one fails in it, or does not end in time.
        """
        ending = [one for one in self._state.launched if one.handle.poll() is None]
        self._stop_nfs()
        for launched in ending:
            status = launched.handle.poll()
            if status is None:
                why = f"did not end within {STOP_TIMEOUT_S:g} s"
                launched.handle.kill()
            elif is_failure(status):
                why = ""
            else:
                continue
            text = last_words(launched.handle, why)
            raise NfFailed(text, launched.handle.spec.log_path)

    def _stop_nfs(self) -> None:
        """Ask all NFs to end, and wait until they have, for a while."""
        for launched in self._state.launched:
            launched.asked_to_stop = True
            launched.handle.stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline and any(
            launched.handle.poll() is None for launched in self._state.launched
        ):
            self.poll(POLL_S)

    def close(self) -> None:
        """Stop NFs and workers, and free everything."""
        if not self._survives:
            self._stop_nfs()
            for launched in self._state.launched:
                launched.handle.kill()
        for launched in self._state.launched:
            launched.asked_to_stop = True
        try:
            self.manager.close()
        except OSError:
            log.exception("not everything could be closed")
        finally:
            self._interfaces.close()
