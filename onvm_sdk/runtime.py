"""The process of an NF host: attach, run, stop.

    python -P -m onvm_sdk.runtime --socket PATH --nf NAME[,NAME...] [--config NAME=FILE]

Several names are fused: they run in this process, in chain order. A name is that of an installed NF
or ``module:Class``. When the manager goes away the NFs keep their state and the process attaches
again as soon as a manager listens. SIGTERM, or a request of the manager, ends it after the packets
it holds. An exception in an NF ends it with a traceback.

State can be handed over: on scale-in by the manager (see ``_handover.py``), and by files:
``--snapshot FILE`` writes it when the NFs are drained and at a clean end, ``--restore FILE`` gives
it to the NFs after ``setup``, before packets come.

Imports here are few, and so are those of all modules on the way to the first packet, which is to
come 60 ms after exec: no typing, dataclasses, argparse, pathlib or msgspec.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from binascii import a2b_base64

from onvm_sdk._hosting.announcements import Announcements
from onvm_sdk._hosting.author import describe, located
from onvm_sdk._hosting.handover import MESSAGES as HANDOVER_MESSAGES
from onvm_sdk._hosting.handover import HandOver
from onvm_sdk._hosting.options import Options
from onvm_sdk._hosting.output import begin_output, show_logging
from onvm_sdk._hosting.plugin import Plugin, load_plugin
from onvm_sdk._hosting.reconfigure import MESSAGES as CONFIG_MESSAGES
from onvm_sdk._hosting.reconfigure import Reconfiguration, drop_later, use
from onvm_sdk._hosting.stage import Stage, build_stage
from onvm_sdk._native.nf import (
    Event,
    Host,
    Message,
    MessageType,
    StageHello,
    confine,
    end_process,
    unpack_ports,
)
from onvm_sdk.errors import AttachError, ConfigError, NativeError, OnvmError
from onvm_sdk.flow_lifetimes import lifetimes_ms
from onvm_sdk.limits import BURST_MAX, MESSAGE_MAX
from onvm_sdk.manifest import FRAGMENTS, read_config
from onvm_sdk.nf import Context, Counters, NetworkFunction, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from onvm_sdk._hosting.lists import Questions
    from onvm_sdk.held import HeldPackets

__all__ = ["NfHost", "main"]

SECRET_VARIABLE = "ONVM_ATTACH_SECRET"
OUTPUT_VARIABLE = "ONVM_OUTPUT_FOLDER"
_HOLD_AGAIN_NS = 5_000_000_000
"""Time in which a state has been handed over, or not: longer than a manager waits for it."""
_RETRY_S = 0.05
_EAGER_S = 10.0
"""Seconds in which the next manager may come any moment; the host tries every few milliseconds."""
_EAGER_ATTACH_MS = 50
_EAGER_RETRY_S = 0.002
_DRAIN_POLL_NS = 100_000_000
_RELEASE_POLL_NS = 1_000_000_000
_FIRST_ATTACH_MS = 5000
_LOST_OUTPUT = 120
"""The exit status of the interpreter when it cannot write out its streams."""


class NfError(OnvmError):
    """An NF raised: names NF and hook; the cause has the traceback."""


class NfHost:
    """NFs of one process and their attachment.

    Args:
        path: the manager's attach socket.
        plugins: the NFs, in chain order.
        configs: a configuration file by NF name, or module:Class, for those that have one.
        instances: instance names, in the order of `plugins`; "" lets the manager choose.
        burst_size: packets to take at once; 0: the largest that a manifest wishes.
        services: service types, likewise; "" is that of the manifest.
        restore: snapshot file with the state to begin with, or None.
        snapshot: where to write the state when drained and at a clean end, or None.
        leaves_with_manager: end when the manager is gone instead of waiting for another.
    """

    def __init__(
        self,
        path: str,
        plugins: Sequence[Plugin],
        *,
        configs: dict[str, str],
        instances: Sequence[str] = (),
        services: Sequence[str] = (),
        burst_size: int = 0,
        restore: str | None = None,
        snapshot: str | None = None,
        leaves_with_manager: bool = False,
    ) -> None:
        self._path = path
        self._leaves_with_manager = leaves_with_manager
        self._burst_size = burst_size or max(plugin.manifest.burst_size for plugin in plugins)
        self._restore = restore
        self._snapshot = snapshot
        self._host = Host()
        self._error: BaseException | None = None
        self._stop = False
        self._announcements = told = Announcements(self._host)
        self._draining: set[int] = set()
        self._drain_at_ns = 0
        self._release_at_ns = 0
        self._hold_again_ns = 0
        self._stages: list[Stage] = []
        self._nfs: list[NetworkFunction] = []
        self._contexts: list[Context] = []
        self._timers: list[tuple[int, int]] = []
        self._links: dict[str, bytes] = {}
        self._manifests = [plugin.manifest for plugin in plugins]
        self._holds = any(manifest.held_packets for manifest in self._manifests)
        self._config_files = [configs.get(plugin.entry_point.name) for plugin in plugins]
        self._hellos: list[StageHello] = []
        for number, plugin in enumerate(plugins):
            manifest = plugin.manifest
            self._host.allow(
                number,
                may_originate="originate" in manifest.permissions,
                held_packets=manifest.held_packets,
            )
            instance = instances[number] if number < len(instances) else ""
            service = (services[number] if number < len(services) else "") or manifest.service
            self._hellos.append(
                StageHello(
                    service,
                    instance,
                    manifest.drop_reasons,
                    manifest.counters,
                    FRAGMENTS.index(manifest.fragments),
                )
            )
            self._contexts.append(
                Context(
                    name=manifest.name,
                    instance=instance,
                    config=read_config(manifest, configs.get(plugin.entry_point.name)),
                    counters=Counters(manifest.counters),
                    reasons=tuple(manifest.drop_reasons),
                    send_message=told.sender(number),
                    claim=told.claimer(number),
                    unclaim=told.unclaimer(number),
                    own_addresses=told.address_teller(number),
                    held=self._held_packets(number, manifest.held_packets),
                    originate=self._originator(number),
                    output_folder=os.environ.get(OUTPUT_VARIABLE, ""),
                )
            )
            self._nfs.append(self._call(number, "load", lambda kind: kind(), plugin.load()))
        show_logging()
        self._hand_over = HandOver(self._host, self._nfs, self._manifests)
        self._questions: Questions | None = None
        self._reconfiguration = Reconfiguration(
            self._host, self._nfs, self._manifests, self._contexts, self._use
        )

    def check(self) -> None:
        """Set up and end, without a manager.

        Raises:
            NfError: an NF raised.
        """
        for number in range(len(self._nfs)):
            self._setup(number)
        for number, nf in enumerate(self._nfs):
            self._call(number, "teardown", nf.teardown)
        self._host.close()

    def run(self) -> None:
        """Attach, set up and serve until told to stop.

        Raises:
            AttachError: no manager listens, or it refuses.
            NfError: an NF raised.
        """
        self._host.stop_on_signals()
        for number in range(len(self._nfs)):
            self._setup(number)
        self._restore_states()
        self._attach(_FIRST_ATTACH_MS)
        self._get_ready()
        try:
            self._serve()
            if self._holds:
                self._host.hold(False)
            self._write_snapshot()
        finally:
            if self._error is None:
                for number, nf in enumerate(self._nfs):
                    self._call(number, "teardown", nf.teardown)
            self._host.close()

    @property
    def _is_stopping(self) -> bool:
        return self._stop or self._host.is_stop_requested

    def _setup(self, number: int) -> None:
        nf, ctx = self._nfs[number], self._contexts[number]
        try:
            self._call(number, "setup", nf.setup, ctx)
        except ConfigError as error:
            file = self._config_files[number]
            if error.file is not None or file is None:
                raise
            raise ConfigError(
                error.expected, file=file, field=error.field, value=error.value
            ) from None
        stage = build_stage(nf, lambda error: self._fail(number, error))
        self._stages.append(stage)
        self._host.set_stage(number, stage.function, stage.state)
        self._host.permit(number, self._manifests[number].permissions)
        self._set_timer(number)

    def _set_timer(self, number: int) -> None:
        interval_ns = int(self._nfs[number].timer_interval_s * 1e9)
        self._timers = [timer for timer in self._timers if timer[1] != number]
        if interval_ns > 0:
            self._timers.append((time.monotonic_ns() + interval_ns, number))

    def _use(self, number: int, prepared: Any) -> None:
        """Let an NF use a new configuration, from the next burst on."""
        stage = use(self._stages[number], prepared, lambda error: self._fail(number, error))
        if stage is not self._stages[number]:
            self._host.set_stage(number, stage.function, stage.state)
            drop_later(self._stages[number])
            self._stages[number] = stage
        self._set_timer(number)

    def _restore_states(self) -> None:
        if self._restore is None:
            return
        from onvm_sdk._hosting.snapshot import read_snapshot

        states = read_snapshot(self._restore, [manifest.name for manifest in self._manifests])
        for number, (nf, state) in enumerate(zip(self._nfs, states, strict=True)):
            self._call(number, "restore", nf.restore, state)

    def _write_snapshot(self) -> None:
        if self._snapshot is None:
            return
        from onvm_sdk._hosting.snapshot import write_snapshot

        states = [
            (self._manifests[number].name, self._call(number, "snapshot", nf.snapshot))
            for number, nf in enumerate(self._nfs)
        ]
        write_snapshot(self._snapshot, states)

    def _attach(self, timeout_ms: int) -> None:
        self._host.attach(
            self._path,
            self._hellos,
            burst_size=self._burst_size,
            loaned_buffers=sum(manifest.loaned_buffers for manifest in self._manifests),
            wire_sized=any(manifest.wire_sized for manifest in self._manifests),
            secret=os.environ.get(SECRET_VARIABLE, ""),
            timeout_ms=timeout_ms,
        )
        if self._holds:
            self._host.hold(True)
        for number, ctx in enumerate(self._contexts):
            values = self._host.counters(number)
            if values is not None:
                ctx.counters.move(values)

    def _held_packets(self, number: int, wanted: int) -> HeldPackets | None:
        if not wanted:
            return None
        from onvm_sdk.held import HeldPackets

        return HeldPackets(self._host.held(number), self._host.context(number))

    def _originator(self, number: int) -> Callable[[bytes, int, int], bool]:
        def originate(packet: bytes, verdict: int, destination: int) -> bool:
            return self._host.originate(number, packet, verdict, destination)

        return originate

    def _release_held(self) -> None:
        """Release what is held, and hold nothing until a state has been handed over, or not."""
        if self._holds:
            self._host.hold(False)
            self._hold_again_ns = time.monotonic_ns() + _HOLD_AGAIN_NS

    def _hold_again(self) -> None:
        if self._hold_again_ns and time.monotonic_ns() >= self._hold_again_ns:
            self._hold_again_ns = 0
            if not self._draining:
                self._host.hold(True)

    def _serve(self) -> None:
        while not self._is_stopping:
            event = self._host.run(self._deadline_ns())
            if self._error is not None:
                raise self._error
            if event == Event.INTERRUPT and (offender := self._host.offender) is not None:
                where = self._where(offender, self._stages[offender].hook)
                expected = 'expected "drop" among the permissions in its manifest'
                self._error = NfError(f"{where} dropped a packet: {expected}")
                raise self._error
            if event == Event.MESSAGE:
                while (message := self._host.receive()) is not None:
                    self._take(message)
            elif event == Event.DETACHED and not self._is_stopping:
                self._attach_again()
            self._reconfiguration.turn()
            if self._questions is not None:
                self._questions.turn()
            self._run_timers()
            self._ask_drained()
            self._ask_released()
            self._hold_again()

    def _attach_again(self) -> None:
        """Wait for a manager, as long as it takes; the NFs' state stays as it is."""
        self._announcements.is_attached = False
        self._stop = self._stop or self._leaves_with_manager
        for ctx in self._contexts:  # attaching again unmaps the memory that holds them
            ctx.counters.keep()
        until = time.monotonic() + _EAGER_S
        while not self._is_stopping:
            is_eager = time.monotonic() < until
            try:
                self._attach(_EAGER_ATTACH_MS if is_eager else 0)
                self._get_ready()
            except (AttachError, NativeError):
                time.sleep(_EAGER_RETRY_S if is_eager else _RETRY_S)
            else:
                return

    def _take(self, message: Message) -> None:
        if message.kind == MessageType.STOP:
            self._stop = True
        elif message.kind == MessageType.DETACH:
            reason = message.payload.decode(errors="replace")
            raise AttachError(f"{self._path}: the manager has detached this NF host: {reason}")
        elif message.kind in HANDOVER_MESSAGES:
            if message.kind in (MessageType.OFFER, MessageType.SNAPSHOT):
                self._release_held()
            self._hand_over.take(message)
        elif message.kind in CONFIG_MESSAGES:
            self._reconfiguration.take(message)
            if message.kind == MessageType.APPLY:
                self._tell_steering()  # lifetimes may follow from the configuration
        elif message.kind == MessageType.QUESTION:
            self._ask(message)
        elif message.kind == MessageType.PORTS:
            self._tell_ports(message.payload)
        elif message.kind == MessageType.RELEASE:
            if self._holds:
                self._host.hold(False)
                self._hold_again_ns = time.monotonic_ns()
        elif message.kind == MessageType.SERVICES:
            lines = (line.partition(" ") for line in message.payload.decode().splitlines())
            services = {name: int(number) for number, _, name in lines}
            for ctx in self._contexts:
                ctx._services = services
        elif message.kind == MessageType.LINK:
            self._links[message.peer] = message.payload
        elif message.kind == MessageType.ADDRESSES:
            addresses = message.payload.decode().splitlines()
            for number, nf in enumerate(self._nfs):
                self._call(number, "on_addresses", nf.on_addresses, addresses)
        elif message.stage >= len(self._nfs):
            return
        elif message.kind == MessageType.DRAIN:
            self._draining.add(message.stage)
        elif message.kind == MessageType.RESUME:
            self._draining.discard(message.stage)
        elif message.kind == MessageType.USER:
            nf = self._nfs[message.stage]
            self._call(message.stage, "on_message", nf.on_message, message.peer, message.payload)
        elif message.kind == MessageType.ASK:
            self._answer(message)

    def _answer(self, message: Message) -> None:
        """Hand a user's message to an NF, and its reply back."""
        stage = message.stage
        nf = self._nfs[stage]
        reply = self._call(stage, "on_message", nf.on_message, "", message.payload)
        if reply is not None and (not isinstance(reply, bytes) or len(reply) >= MESSAGE_MAX):
            expected = f"bytes, fewer than {MESSAGE_MAX}, or None"
            error = TypeError(f"returned {type(reply).__name__}, expected {expected}")
            self._fail(stage, located(error, nf.on_message))
            assert self._error is not None
            raise self._error
        payload = b"" if reply is None else b"\n" + reply
        self._host.send(MessageType.REPLY, stage, message.peer, payload)

    def _ask(self, message: Message) -> None:
        if self._questions is None:
            from onvm_sdk._hosting.lists import Questions  # no question comes before packets do

            self._questions = Questions(self._host, self._nfs)
        self._questions.take(message)

    def _tell_ports(self, payload: bytes) -> None:
        links, self._links = self._links, {}
        if links:
            import json  # takes milliseconds, and most ports have no addresses

            told = {name: json.loads(text) for name, text in links.items()}
        else:
            told = {}
        ports = [
            Port(name, number, mtu, mac.hex(":") if any(mac) else "", told.get(name))
            for name, number, mtu, mac in unpack_ports(payload)
        ]
        for ctx in self._contexts:
            ctx._ports = {port.name: port.number for port in ports}
        for number, nf in enumerate(self._nfs):
            self._call(number, "on_ports", nf.on_ports, ports)
            if nf.timer_interval_s > 0 and self._stages[number].hook == "native":
                self._host.turn(number)  # it may have something to say at the ports at once

    def _ask_drained(self) -> None:
        now_ns = time.monotonic_ns() if self._draining else 0
        if now_ns < self._drain_at_ns or not self._draining:
            return
        self._drain_at_ns = now_ns + _DRAIN_POLL_NS
        for number in sorted(self._draining):
            if self._call(number, "drain", self._nfs[number].drain):
                self._draining.discard(number)
                self._release_held()
                if not self._draining:
                    self._write_snapshot()
                self._host.send(MessageType.DRAINED, number)

    def _ask_released(self) -> None:
        if not self._hand_over.is_watching or time.monotonic_ns() < self._release_at_ns:
            return
        self._release_at_ns = time.monotonic_ns() + _RELEASE_POLL_NS
        self._hand_over.turn()

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now_ns = time.monotonic_ns()
        for index, (due_ns, number) in enumerate(self._timers):
            if due_ns <= now_ns:
                nf = self._nfs[number]
                self._call(number, "on_timer", nf.on_timer, now_ns)
                if self._stages[number].hook == "native":
                    self._host.turn(number)
                self._timers[index] = (now_ns + int(nf.timer_interval_s * 1e9), number)

    def _deadline_ns(self) -> int:
        due = [due_ns for due_ns, _ in self._timers]
        if self._questions is not None and self._questions.is_busy:
            due.append(time.monotonic_ns())
        if self._draining:
            due.append(self._drain_at_ns or time.monotonic_ns())
        if self._hold_again_ns:
            due.append(self._hold_again_ns)
        if self._hand_over.is_watching:
            due.append(self._release_at_ns or time.monotonic_ns())
        return min(due, default=0)

    def _tell_steering(self) -> None:
        """Tell which flows belong to one instance, and how long the NFs hold them."""
        for number, manifest in enumerate(self._manifests):
            held = lifetimes_ms(manifest, self._contexts[number].config)
            words = " ".join([manifest.affinity, *map(str, held or ())])
            self._host.send(MessageType.STEERING, number, payload=words.encode())

    def _get_ready(self) -> None:
        """Let packets come; tell the manager what it must know, and what has waited for it."""
        self._tell_steering()
        self._announcements.tell_claims()
        self._host.ready()
        self._announcements.tell_rest()

    def _fail(self, number: int, error: BaseException) -> None:
        if self._error is None:
            where = self._where(number, self._stages[number].hook)
            self._error = NfError(f"{where} raised {describe(error, self._nfs[number])}")
            self._error.__cause__ = error
        self._host.interrupt()

    def _where(self, number: int, hook: str) -> str:
        return f"{self._manifests[number].name}.{hook}"

    def _call(self, number: int, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call an author's hook: the plugin boundary, which names NF and hook."""
        try:
            return function(*arguments)
        except OnvmError:
            raise
        except Exception as error:
            nf = self._nfs[number] if number < len(self._nfs) else None
            line = describe(error, nf)
            self._error = NfError(f"{self._where(number, hook)} raised {line}")
            raise self._error from error


def _unpack_stdin() -> None:
    """Write the files of an archive to where they are named: a launcher sends them this way."""
    import tarfile

    # The sender has started this process, and may name any place.
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        archive.extraction_filter = lambda entry, _path: entry
        for entry in archive:
            archive.extract(entry, "/", set_attrs=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an NF host; gives the exit status."""
    # An NF host is one thread on one core: NumPy's OpenBLAS is not to start one per core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        options = Options(sys.argv[1:] if arguments is None else arguments)
        core = options.number("--core")
        if core is not None:
            os.sched_setaffinity(0, {core})
        for program in options.all("--seccomp"):
            confine(a2b_base64(program))
        burst_size = options.number("--burst-size") or 0
        if burst_size > BURST_MAX:
            raise ConfigError(f"expected 1 to {BURST_MAX}", field="--burst-size", value=burst_size)
        names = [name for name in options.names("--nf") if name]
        configs = {}
        for entry in options.all("--config"):
            name, equals, file = entry.partition("=")
            if not equals or name not in names:
                known = ", ".join(names)
                raise ConfigError(
                    f"expected NAME=FILE with a NAME of {known}", field="--config", value=entry
                )
            configs[name] = file
        if options.all("--files-from-stdin"):
            _unpack_stdin()
        begin_output()
        plugins = [load_plugin(name) for name in names]
        host = NfHost(
            options.last("--socket") or "",
            plugins,
            configs=configs,
            instances=options.names("--instance"),
            services=options.names("--service"),
            burst_size=burst_size,
            restore=options.last("--restore"),
            snapshot=options.last("--snapshot"),
            leaves_with_manager=bool(options.all("--leave-with-manager")),
        )
        if options.all("--check"):
            host.check()
        else:
            host.run()
    except ConfigError as error:
        print(f"onvm: {error}", file=sys.stderr)
        return 2
    except AttachError as error:
        print(f"onvm: {error}", file=sys.stderr)
        return 3
    except NfError as error:
        import traceback

        traceback.print_exception(error.__cause__ or error)
        print(f"onvm: {error}", file=sys.stderr)
        return 1
    return 0


def _end(status: int) -> None:
    """End this process as the interpreter would, but leave its memory to the kernel.

    Threads are waited for, exit functions run and streams are written out. Objects are not
    collected: freeing tables that were made for millions of flows takes up to a second.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError:  # the other end of a pipe is gone
            status = status or _LOST_OUTPUT
    end_process(status)


if __name__ == "__main__":
    _end(main())
