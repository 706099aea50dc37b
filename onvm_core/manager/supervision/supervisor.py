"""Keeps the NF hosts of a long-lived manager running, across its own death too.

The launched NF hosts are recorded in ``nfs.json`` (mode 0600) in the manager's directory: the
secret each NF host attaches with, its PID and start time, and its NFs. The record is written before
the process starts and again when its PID is known, so a killed manager never leaves an NF host that
the next one cannot find. The next manager reads the record and expects those secrets: NF hosts that
live and still match the configuration are adopted with their state; others are ended.

An NF host that dies is started again after a delay: 0.1 s, doubled each time up to 5 s. If it dies
five times in a row without living for ten seconds, it is in a crash loop, and is tried only every
30 s. If an instance of the same services is on standby, it takes over at once, and the NF host that
died becomes the standby.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from onvm_core.launch.identity import ProcessId, find_by_environment
from onvm_core.launch.launcher import SECRET_VARIABLE, LaunchSpec
from onvm_core.manager.api.directory import write_private
from onvm_core.manager.api.messages import LaunchedNf, NfEvent
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_failure import is_failure, last_words
from onvm_core.manager.nf_hosts.attach import PROCESS_ENDED
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.supervision.drain import Drains
from onvm_core.manager.supervision.reconfiguration import Reconfiguration
from onvm_core.manager.supervision.supervised import (
    CRASH_LOOP,
    FIRST_DELAY_S,
    HEALTHY_S,
    LOG_LINES,
    Supervised,
    WantedHost,
)
from onvm_sdk.errors import OnvmError

__all__ = ["Supervisor"]

log = logging.getLogger("onvm.supervisor")

RECORD = "nfs.json"
LAST_DELAY_S = 5.0
CRASH_LOOP_DELAY_S = 30.0
DETACHED_TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.01


class _Record(msgspec.Struct, frozen=True):
    wanted: WantedHost
    secret: str
    log: str
    pid: int = 0
    start_time: int = 0
    adopted: tuple[str, ...] = ()

    def process(self) -> ProcessId | None:
        """The process, if it is alive."""
        if self.pid == 0:  # the manager died between writing this and knowing the PID
            return next(iter(find_by_environment(SECRET_VARIABLE, self.secret)), None)
        process = ProcessId(self.pid, self.start_time)
        return process if process.is_alive else None


class Supervisor:
    """Starts, adopts, watches, restarts and stops NF hosts.

    Args:
        publish: gets what happens to them.
        ready_s: the longest time that an NF host may take until it serves.
    """

    def __init__(
        self,
        directory: Path,
        deployment: Deployment,
        publish: Callable[[NfEvent], None],
        ready_s: float = 60.0,
    ) -> None:
        self._ready_s = ready_s
        self._record_path = directory / RECORD
        self._deployment = deployment
        self._publish = publish
        self._nfs: list[Supervised] = []
        self.drains = Drains(deployment, self._nfs, self._stop, self._write)
        self.reconfiguration = Reconfiguration(deployment.manager)
        self.reserved: Callable[[], set[str]] = set
        """Names that are reserved although no instance here has them."""
        self._unread: list[_Record] = []
        """NF hosts of the earlier manager that are neither adopted nor ended yet."""

    # ---- state ----

    def launched(self) -> list[LaunchedNf]:
        """All supervised NF hosts."""
        return [nf.show() for nf in self._nfs]

    def instance_names(self) -> set[str]:
        """Names that are in use."""
        taken = {name for nf in self._nfs for name in (*nf.wanted.instances, *nf.adopted)}
        return taken | self.reserved()

    def first_failure(self) -> str:
        """The line of an NF host that has failed and never served; "" if there is none."""
        for nf in self._nfs:
            if nf.restarts and not nf.has_served and not nf.wanted.is_by_command:
                return nf.reason
        return ""

    def all_active(self) -> bool:
        """True if every NF host serves or is on standby."""
        return all(nf.is_serving or nf.is_on_standby or nf.is_leaving for nf in self._nfs)

    def count(self, service: str) -> Counter[str]:
        """The number of NF hosts of a service in each state, by the names of `ServiceState`."""
        counts: Counter[str] = Counter()
        for nf in self._nfs:
            if service in nf.wanted.services:
                counts[nf.part] += 1
        return counts

    def wanted(self) -> list[WantedHost]:
        """The NF hosts that should run, without those that are leaving."""
        return [nf.wanted for nf in self._nfs if not nf.is_leaving]

    def serving(self, service: str) -> list[NfHost]:
        """Hosts of a service that can get new flows."""
        return [
            nf.host
            for nf in self._nfs
            if nf.host is not None and nf.is_serving and service in nf.wanted.services
        ]

    def example(self, service: str) -> WantedHost | None:
        """The description of an NF host of the service; None if there is none."""
        return next((nf.wanted for nf in self._nfs if service in nf.wanted.services), None)

    # ---- start ----

    def adopt(self, wanted: Iterable[WantedHost]) -> int:
        """Adopt NF hosts that an earlier manager left, start missing ones; return how many were
        adopted.
        """
        missing = list(wanted)
        n_adopted = 0
        self._unread = self._read()
        while self._unread:
            record = self._unread.pop(0)
            process, spec = record.process(), _spec(record, self._deployment)
            if process is None:
                self._deployment.end_earlier(spec, None, record.wanted.launcher)
                if record.wanted.is_by_command:  # nothing else would start it again
                    missing.append(record.wanted)
                continue
            of_file = record.wanted.of_file
            is_wanted = of_file in missing or record.wanted.is_by_command
            if is_wanted and self._adopt(record, process):
                n_adopted += 1
                if of_file in missing:
                    missing.remove(of_file)
            else:
                log.info("ending %s (pid %d): no longer wanted", _label(record), process.pid)
                self._deployment.end_earlier(spec, process, record.wanted.launcher)
        for host in missing:
            self._run_if_possible(host)
        return n_adopted

    def _run_if_possible(self, wanted: WantedHost) -> None:
        """Apply `run`; an NF host that was added by command may be left out."""
        try:
            self.run(wanted)
        except OnvmError as error:
            if not wanted.is_by_command:
                raise
            log.warning("%s is not started again: %s", "+".join(wanted.instances), error)

    def run(self, wanted: WantedHost) -> LaunchedNf:
        """Start an NF host and supervise it.

        Raises:
            OnvmError: it cannot be started, and is not supervised.
        """
        return self._run(Supervised(wanted)).show()

    def reserve(self, wanted: WantedHost) -> Supervised:
        """Start an NF host that serves only after `take_in`.

        Raises:
            OnvmError: as in `run`.
        """
        return self._run(Supervised(wanted, is_reserved=True))

    def _run(self, nf: Supervised) -> Supervised:
        self._nfs.append(nf)
        try:
            self._start(nf)
        except OnvmError:
            self._nfs.remove(nf)
            self._write()
            raise
        return nf

    def take_in(self, nf: Supervised) -> None:
        """Let an NF host that was reserved serve from now on."""
        nf.is_reserved = False
        self._activate(nf)

    def stand_by(self, nf: Supervised) -> None:
        """Let an NF host that was reserved be on standby."""
        nf.is_reserved = False
        self.change(nf, msgspec.structs.replace(nf.wanted, is_standby=True))

    def discard(self, nf: Supervised) -> None:
        """End an NF host that no flow needs."""
        if nf in self._nfs and not nf.is_stopping:
            self._stop(nf)

    def change(self, nf: Supervised, wanted: WantedHost) -> None:
        """Describe an NF host otherwise, as which it is started again if it dies."""
        nf.wanted = wanted
        self._write()

    @property
    def hosts(self) -> Sequence[Supervised]:
        """All supervised NF hosts."""
        return tuple(self._nfs)

    def _adopt(self, record: _Record, process: ProcessId) -> bool:
        """Adopt an NF host; False if that fails, as when the plugin that launched it is gone."""
        spec = _spec(record, self._deployment)
        if record.wanted.is_standby:
            self._deployment.manager.hold(record.secret)
        try:
            handle = self._deployment.adopt(
                spec, process, record.wanted.services, record.wanted.launcher
            )
        except OnvmError as error:
            log.warning("%s cannot be adopted: %s", _label(record), error)
            return False
        log.info("adopting %s (pid %d)", _label(record), process.pid)
        self._nfs.append(
            Supervised(
                record.wanted,
                handle,
                record.secret,
                record.log,
                process,
                since=time.monotonic(),
                adopted=set(record.adopted),
            )
        )
        self._write()
        return True

    def _start(self, nf: Supervised) -> None:
        nf.secret = secrets.token_hex(16)
        nf.log = str(self._record_path.parent / "logs" / f"{'+'.join(nf.wanted.instances)}.log")
        nf.handle, nf.host, nf.process, nf.gone_at, nf.is_slow = None, None, None, 0.0, False
        nf.adopted = set()
        self._write()
        if nf.wanted.is_standby or nf.is_reserved:
            self._deployment.manager.hold(nf.secret)
        nf.handle = self._deployment.launch(
            nf.wanted.nfs,
            configs={name: Path(path) for name, path in nf.wanted.configs.items()},
            instances=nf.wanted.instances,
            services=nf.wanted.services,
            secret=nf.secret,
            launcher=nf.wanted.launcher,
        )
        nf.process = ProcessId.of(nf.handle.pid)
        nf.since = time.monotonic()
        self._write()

    # ---- running ----

    def turn(self) -> None:
        """Check each NF host; one that died is started again after its delay."""
        now = time.monotonic()
        n_before = len(self._nfs)
        for nf in list(self._nfs):
            if nf.handle is None:
                if now >= nf.retry_at:
                    self._start_again(nf, now)
            elif nf.handle.poll() is not None:
                self._ended(nf, now)
            else:
                self._watch(nf, now)
        if len(self._nfs) < n_before:  # once for all that have left: it takes milliseconds
            self._write()
        self.drains.turn(now)
        self.reconfiguration.turn()

    def is_excused(self, host: NfHost) -> bool:
        """True if a host that makes no progress may be busy with a state, or with new tables."""
        return self.drains.is_excused(host) or self.reconfiguration.is_excused(host)

    def on_host_change(self, host: NfHost) -> None:
        """Record that the manager reports a host as active or dead."""
        nf = next((n for n in self._nfs if n.handle is not None and n.secret == host.secret), None)
        if nf is not None:
            nf.host = host
            nf.has_served |= host.state in (HostState.ACTIVE, HostState.STANDBY)
            self._remember_process(nf, host)
            if host.state is HostState.DEAD:
                nf.gone_at = time.monotonic()
                self.drains.on_gone(host)
                self._replace(nf)
        self._publish(
            NfEvent(
                instances=[instance.name for instance in host.instances],
                state="gone" if host.state is HostState.DEAD else host.state.value,
                pid=host.pid,
                reason=host.reason,
            )
        )

    def _replace(self, dead: Supervised) -> None:
        """Let an instance on standby take over from one that died."""
        if dead.is_leaving or dead.wanted.is_standby:
            return
        for nf in self._nfs:
            if nf.is_on_standby and nf.wanted.services == dead.wanted.services:
                self._activate(nf)
                dead.wanted = msgspec.structs.replace(dead.wanted, is_standby=True)
                self._write()
                return

    def _remember_process(self, nf: Supervised, host: NfHost) -> None:
        """Record its process, if its launcher did not know it when it had started it."""
        assert nf.handle is not None
        if nf.process is None and host.state is not HostState.DEAD:
            nf.process = ProcessId.of(nf.handle.pid or host.pid)
            self._write()

    def _watch(self, nf: Supervised, now: float) -> None:
        """End a process that runs but does not serve."""
        assert nf.handle is not None
        is_lost = nf.gone_at and now - nf.gone_at > DETACHED_TIMEOUT_S
        is_slow = nf.host is None and now - nf.since > self._ready_s
        nf.is_slow |= is_slow
        is_stuck = nf.is_stopping and now > nf.stop_at
        if is_lost or is_slow or is_stuck:
            nf.handle.kill()

    def _ended(self, nf: Supervised, now: float) -> None:
        assert nf.handle is not None
        handle, nf.handle = nf.handle, None
        nf.reason = last_words(
            handle, f"was not ready within {self._ready_s:g} s" if nf.is_slow else ""
        )
        if nf.host is not None and nf.host.reason not in ("", PROCESS_ENDED):
            nf.reason = f"{nf.host.reason}; {nf.reason}"
        nf.log_tail = handle.log_tail()[-LOG_LINES:]
        self._deployment.forget(handle)
        if nf.is_leaving:
            self._nfs.remove(nf)
            if is_failure(handle.poll() or 0):
                self._tell_failure(nf, handle.pid, "failed")
            return
        if now - nf.since > HEALTHY_S:
            nf.delay_s, nf.failures = FIRST_DELAY_S, 0
        self._failed(nf, now, handle.pid)

    def _start_again(self, nf: Supervised, now: float) -> None:
        try:
            self._start(nf)
        except OnvmError as error:  # no resources now, or its package is gone: it may come back
            nf.reason = str(error)
            self._failed(nf, now, 0)

    def _failed(self, nf: Supervised, now: float, pid: int) -> None:
        """Report the failure, and set the time of the next start."""
        nf.restarts += 1
        nf.failures += 1
        delay_s = CRASH_LOOP_DELAY_S if nf.failures >= CRASH_LOOP else nf.delay_s
        nf.retry_at = now + delay_s
        log.warning("%s; started again in %g s", nf.reason, delay_s)
        nf.delay_s = min(nf.delay_s * 2, LAST_DELAY_S)
        self._tell_failure(nf, pid, "crash-loop" if nf.failures >= CRASH_LOOP else "failed")

    def _tell_failure(self, nf: Supervised, pid: int, state: str) -> None:
        instances = list(nf.wanted.instances)
        self._publish(NfEvent(instances=instances, pid=pid, reason=nf.reason, state=state))

    def end(self, host: NfHost) -> None:
        """End the process of a host that does not react; it is started again."""
        for nf in self._nfs:
            if nf.handle is not None and nf.host is host:
                nf.handle.kill()

    # ---- scale ----

    def activate(self, service: str) -> str | None:
        """Send new flows to an instance on standby; return its name, or None if there is none."""
        for nf in self._nfs:
            if nf.is_on_standby and service in nf.wanted.services:
                self._activate(nf)
                return "+".join(nf.wanted.instances)
        return None

    def _activate(self, nf: Supervised) -> None:
        assert nf.host is not None
        nf.wanted = msgspec.structs.replace(nf.wanted, is_standby=False)
        self._deployment.manager.activate_host(nf.host)
        self._write()

    def stop_standby(self, service: str) -> str | None:
        """Stop an instance on standby; return its name, or None if there is none."""
        for nf in reversed(self._nfs):
            if service in nf.wanted.services and nf.wanted.is_standby and not nf.is_leaving:
                self._stop(nf)
                return "+".join(nf.wanted.instances)
        return None

    # ---- stop ----

    def stop(self, name: str) -> list[LaunchedNf]:
        """Let the hosts of an instance or service hand over their state, and leave; return them."""
        asked = [
            nf for nf in self._nfs if name in nf.wanted.instances or name in nf.wanted.services
        ]
        shown = [nf.show() for nf in asked]
        usual = ScaleConfig()
        self.drains.end(asked, usual.drain_s, usual.handover_ms / 1000)
        return shown

    def stop_with_successor(self, nf: Supervised, successor: int) -> None:
        """End an NF host whose state another host has, here or at a peer; its flows go to that
        slot.
        """
        self._stop(nf, successor)

    def find(self, instance: str) -> Supervised | None:
        """The NF host of an instance; None if no supervised NF host has that name."""
        return next((nf for nf in self._nfs if instance in nf.wanted.instances), None)

    def _stop(self, nf: Supervised, successor: int = 0) -> None:
        if successor == 0 and nf.host is not None:
            self.drains.forget(nf.host)
        nf.is_stopping = True
        nf.stop_at = time.monotonic() + STOP_TIMEOUT_S
        if nf.handle is None:
            self._nfs.remove(nf)
            self._write()
        elif nf.host is not None and nf.host.state is not HostState.DEAD:
            self._deployment.stop_host(nf.host, successor)
        else:
            nf.handle.stop()

    def stop_all(self) -> None:
        """Stop all and wait until they are gone."""
        for nf in list(self._nfs):
            self._stop(nf)
        while self._nfs:  # ends: a host that does not leave in time is killed
            self._deployment.poll(POLL_S)
            self.turn()
        self._record_path.unlink(missing_ok=True)

    # ---- the record ----

    def _write(self) -> None:
        records = [
            _Record(
                nf.wanted,
                nf.secret,
                nf.log,
                nf.process.pid if nf.process else 0,
                nf.process.start_time if nf.process else 0,
                tuple(sorted(nf.adopted)),
            )
            for nf in self._nfs
            if nf.secret
        ] + self._unread
        write_private(self._record_path, records)

    def _read(self) -> list[_Record]:
        try:
            return msgspec.json.decode(self._record_path.read_bytes(), type=list[_Record])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s: not read: %s", self._record_path, error)
            return []


def _spec(record: _Record, deployment: Deployment) -> LaunchSpec:
    return LaunchSpec(
        nfs=record.wanted.nfs,
        attach_path=deployment.manager.attach_path,
        secret=record.secret,
        log_path=Path(record.log),
        instances=record.wanted.instances,
        configs={name: Path(path) for name, path in record.wanted.configs.items()},
        survives_manager=True,
    )


def _label(record: _Record) -> str:
    return "+".join(record.wanted.instances)
