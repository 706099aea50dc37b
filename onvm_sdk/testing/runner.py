"""Run NFs in this process, without a manager, on packets in private memory."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsBytes

from onvm_sdk._hosting.lists import Question
from onvm_sdk._hosting.reconfigure import can_reconfigure, use
from onvm_sdk._hosting.stage import Stage, build_stage
from onvm_sdk._native import held as held_table
from onvm_sdk._native import local
from onvm_sdk.errors import ManifestError, OnvmError
from onvm_sdk.held import HeldPackets
from onvm_sdk.limits import COUNTERS_MAX
from onvm_sdk.manifest import (
    BURST_USUAL,
    LOANED_USUAL,
    Manifest,
    find_manifest,
    read_config,
    read_manifest,
)
from onvm_sdk.nf import Context, Counters, NetworkFunction, Port
from onvm_sdk.source import class_manifest
from onvm_sdk.testing.faults import Faults
from onvm_sdk.verdict import Verdict

__all__ = ["Result", "Runner", "run"]

NfLike = NetworkFunction | type[NetworkFunction] | str
Left = tuple[Verdict, int, bytes]
Frames = str | os.PathLike[str] | Iterable[bytes | SupportsBytes]
_F_REVERSE = 1
_ROOM = 512
START_NS = 1_000_000_000
"""The time at which a runner begins, nanoseconds."""
HELD_USUAL = 1024


@dataclass(slots=True)
class Result:
    """The outcome of a run. Entry i of each list is about packet i of the input."""

    packets: list[bytes]
    """Every packet after the run, dropped ones included."""
    verdicts: list[Verdict]
    destinations: list[int]
    """Drop reason, service ID or port, depending on the verdict."""
    reasons: list[str | None]
    """Name of the drop reason; None for packets that are not dropped."""
    counters: dict[str, dict[str, int]]
    """Counters of each NF, by its name."""
    originated: list[Left] = field(default_factory=list)
    """Packets that the NFs created: verdict, destination, bytes."""
    released: list[Left] = field(default_factory=list)
    """Packets that were held and have been released, as in `originated`, in their order."""
    broken: list[int] = field(default_factory=list)
    """Numbers of packets around which an NF wrote into other memory."""

    @property
    def forwarded(self) -> list[bytes]:
        """Packets that were not dropped."""
        pairs = zip(self.packets, self.verdicts, strict=True)
        return [packet for packet, verdict in pairs if verdict is not Verdict.DROP]


class Runner:
    """NFs that are set up. Call ``run`` as often as you like; the NFs keep their state.

    An NF without a manifest may hold and originate packets.

    Args:
        nfs: one NF or several fused ones, in chain order: instances, classes, or names of
            installed NFs.
        config: the configuration, or for several NFs a table by NF name.
        compiled: False runs kernels interpreted.
        faults: what goes wrong.
        output_folder: the folder that NFs find in their contexts.

    Lifetime: a context manager; its exit tears the NFs down.
    """

    def __init__(
        self,
        nfs: NfLike | Sequence[NfLike],
        *,
        config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        compiled: bool = True,
        faults: Faults | None = None,
        output_folder: str | os.PathLike[str] = "",
    ) -> None:
        many = [nfs] if isinstance(nfs, (NetworkFunction, type, str)) else list(nfs)
        self.now_ns = START_NS
        """The clock that the NFs see, nanoseconds; it moves when a test moves it."""
        self.faults = faults or Faults()
        self._error: BaseException | None = None
        self._compiled = compiled
        self._output_folder = os.fspath(output_folder)
        self._manifests: list[Manifest | None] = []
        self._counters: list[bytearray] = []
        self._held: list[Any] = []
        self._due_ns: dict[int, int] = {}
        self._memories: list[local.LocalMemory] = []
        self._released: list[Left] = []
        self.contexts: list[Context] = []
        self.stages: list[Stage] = []
        for nf in many:
            instance, manifest, name = _resolve(nf)
            own = config
            if len(many) > 1:
                if config is not None and not isinstance(config, Mapping):
                    raise TypeError("expected a table of configurations by NF name")
                own = (config or {}).get(name)
            ctx = self._context(name, manifest, own)
            instance.setup(ctx)
            self._manifests.append(manifest)
            self.contexts.append(ctx)
            self.stages.append(build_stage(instance, self._fail, compiled=compiled))

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        for stage in self.stages:
            stage.nf.teardown()

    def reconfigure(
        self, config: Mapping[str, Any] | str | os.PathLike[str], *, nf: int = 0
    ) -> None:
        """Give an NF another configuration, as a manager does: it prepares it, then uses it.

        Args:
            config: the whole new configuration.
            nf: number of the NF, if several are fused.

        Raises:
            ConfigError: it has a mistake; the NF goes on with the old one.
            OnvmError: the NF has no `reconfigure`.
        """
        stage, ctx = self.stages[nf], self.contexts[nf]
        if not can_reconfigure(stage.nf):
            raise OnvmError(f"{ctx.name} has no reconfigure")
        checked = _checked(ctx.name, self._manifests[nf], config)
        prepared = stage.nf.prepare(checked)
        self.stages[nf] = use(stage, prepared, self._fail, compiled=self._compiled)
        ctx.config = checked

    def connect(self, ports: Mapping[str, int], services: Mapping[str, int] | None = None) -> None:
        """Tell the NFs ports and services by name, as a manager does before the first packet."""
        for ctx, stage in zip(self.contexts, self.stages, strict=True):
            ctx._ports, ctx._services = dict(ports), dict(services or {})
            stage.nf.on_ports([Port(name, number) for name, number in ports.items()])

    def send(self, payload: bytes, *, sender: str = "", nf: int = 0) -> tuple[bytes | None, Result]:
        """Send a message to an NF.

        Args:
            sender: name of a service or an instance; "" is the manager.
            nf: number of the NF, if several are fused.

        Returns:
            Its reply, and the packets that it has made and released.
        """
        memory = self._new_memory([])
        reply = self.stages[nf].nf.on_message(sender, payload)
        return reply, self._result(memory, 0, [])

    def advance(self, seconds: float) -> Result:
        """Move the clock, and run the timers that are due on the way.

        Returns:
            The packets that the NFs have made and released.
        """
        memory = self._new_memory([])
        end = self.now_ns + round(seconds * 1e9)
        while (due := self._next_timer()) is not None and due[0] <= end:
            self.now_ns, number = due
            nf = self.stages[number].nf
            nf.on_timer(self.now_ns)
            self._due_ns[number] = self.now_ns + int(nf.timer_interval_s * 1e9)
            if self.stages[number].hook == "native":
                self._call(memory, number, [], is_first=True, is_last=True)
            self._pass_released(memory)
        self.now_ns = end
        return self._result(memory, 0, [])

    def show(
        self, what: str, where: Mapping[str, str] | None = None, *, nf: int = 0
    ) -> list[dict[str, Any]]:
        """List entries of an NF's state, as ``onvm nf show`` does.

        Args:
            where: wanted values by the names of fields, or networks of addresses.
            nf: number of the NF, if several are fused.

        Raises:
            ConfigError: the NF has no such list, or its entries no such field.
        """
        return self._ask(Question(self.stages[nf].nf, what, where or {}))

    def kill(self, what: str, where: Mapping[str, str], *, nf: int = 0) -> int:
        """Remove entries of a list, as ``onvm nf kill`` does; returns how many."""
        question = Question(self.stages[nf].nf, what, where, kills=True)
        self._ask(question)
        return question.killed

    def _ask(self, question: Question) -> list[dict[str, Any]]:
        while not question.is_over:
            question.work(time.monotonic_ns())
        return question.entries

    def run(
        self,
        packets: Frames,
        *,
        reverse: Sequence[bool] | bool = False,
        ports: Sequence[int] | int = 0,
        flow_hashes: Sequence[int] | int = 0,
        now_ns: int | None = None,
        times_ns: Sequence[int] | int | None = None,
        burst_size: int = BURST_USUAL,
    ) -> Result:
        """Send packets through the NFs.

        Args:
            packets: bytes, scapy packets, or the path of a pcap file.
            reverse: whether packets travel the chain backwards, for all or for each.
            ports: ingress ports, for all or for each.
            flow_hashes: flow hashes, for all or for each.
            now_ns: the time that NFs see from now on, nanoseconds; None: as before.
            times_ns: when packets were captured, for all or for each, nanoseconds since 1970;
                None: they come from a live port, and `time_ns` is the clock of this runner.
            burst_size: packets per call, up to 2048.

        Raises:
            BaseException: any exception that a handler raised.
        """
        if now_ns is not None:
            self.now_ns = now_ns
        frames = load_frames(packets)
        memory = self._new_memory(frames)
        slots = range(len(frames))
        for slot, backwards, port, flow_hash in zip(
            slots,
            _each(reverse, len(frames)),
            _each(ports, len(frames)),
            _each(flow_hashes, len(frames)),
            strict=True,
        ):
            packet = memory.packets[slot]
            packet.flags = local.WHOLE_WAY | (_F_REVERSE if backwards else 0)
            packet.port = port
            packet.flow_hash = flow_hash
        if times_ns is not None:
            for slot, time_ns in zip(slots, _each(times_ns, len(frames)), strict=True):
                memory.set_time(slot, time_ns)
        decided = [0] * len(frames)
        for first in self.faults.cuts(len(frames), burst_size):
            burst = list(slots[first[0] : first[1]])
            self._inject(first[0])
            is_reverse = [bool(memory.packets[slot].flags & _F_REVERSE) for slot in burst]
            for direction in (False, True):
                part = [
                    slot for slot, is_r in zip(burst, is_reverse, strict=True) if is_r is direction
                ]
                self._pass(memory, part, direction, decided)
            self._pass_released(memory)
        return self._result(memory, len(frames), decided)

    def _inject(self, packet: int) -> None:
        for held in self._held:
            if held is not None and self.faults.hold_limit is not None:
                held_table.Table(held_table.address_of(held)).limit = self.faults.hold_limit
        config = self.faults.configurations.get(packet)
        if config is not None:
            self.reconfigure(config)

    def _new_memory(self, frames: list[bytes]) -> local.LocalMemory:
        longest = max(map(len, frames), default=0)
        memory = local.LocalMemory(
            frames,
            nb_loaned=0 if self.faults.no_buffers else LOANED_USUAL,
            slot_bytes=min(max(2048, longest + 2 * _ROOM), 65535 + local.HEADROOM),
        )
        # Held packets lie in the memory of the run in which they came.
        if not any(ctx._held is not None and len(ctx._held) for ctx in self.contexts):
            self._memories.clear()
        self._memories.append(memory)
        return memory

    def _next_timer(self) -> tuple[int, int] | None:
        for number, stage in enumerate(self.stages):
            interval_ns = int(stage.nf.timer_interval_s * 1e9)
            if interval_ns > 0:
                self._due_ns.setdefault(number, self.now_ns + interval_ns)
            else:
                self._due_ns.pop(number, None)
        return min(((due, number) for number, due in self._due_ns.items()), default=None)

    def _call(
        self,
        memory: local.LocalMemory,
        number: int,
        slots: list[int],
        packets: Any = None,
        *,
        is_first: bool,
        is_last: bool,
    ) -> None:
        stage = self.stages[number]
        ctx = self._native_context(memory, number, is_first=is_first, is_last=is_last)
        local.call(stage.function, ctx, memory.packets if packets is None else packets, slots)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _native_context(
        self, memory: local.LocalMemory, number: int, *, is_first: bool, is_last: bool
    ) -> Any:
        manifest = self._manifests[number] if number < len(self._manifests) else None
        held = self._held[number]
        return memory.context(
            self.stages[number].state if number < len(self.stages) else 0,
            self.now_ns,
            self._counters[number],
            is_first=is_first,
            is_last=is_last,
            may_originate=manifest is None or "originate" in manifest.permissions,
            **({} if held is None else {"held": held}),
        )

    def _way(self, is_reverse: bool) -> list[int]:
        way = list(range(len(self.stages)))
        return way[::-1] if is_reverse else way

    def _pass(
        self,
        memory: local.LocalMemory,
        slots: list[int],
        is_reverse: bool,
        decided: list[int],
    ) -> None:
        way = self._way(is_reverse)
        for number in way:
            if not slots:
                return
            made = len(memory.made)
            self._call(memory, number, slots, is_first=number == way[0], is_last=number == way[-1])
            for slot in slots:
                decided[slot] = number
            decided.extend([number] * (max(memory.made[made:], default=-1) + 1 - len(decided)))
            slots = [
                slot
                for slot in [*slots, *memory.made[made:]]
                if memory.packets[slot].verdict == Verdict.NEXT
            ]

    def _pass_released(self, memory: local.LocalMemory) -> None:
        """Take what NFs have released through the NFs behind."""
        for number, held in enumerate(self._held):
            if held is None:
                continue
            while (packets := local.take_released(held)) is not None:
                for row in range(len(packets)):
                    self._pass_one(memory, number, packets, row)

    def _pass_one(self, memory: local.LocalMemory, number: int, packets: Any, row: int) -> None:
        way = self._way(bool(packets[row].flags & _F_REVERSE))
        for behind in way[way.index(number) + 1 :]:
            if packets[row].verdict != Verdict.NEXT:
                break
            is_last = behind == way[-1]
            self._call(memory, behind, [row], packets, is_first=False, is_last=is_last)
        packet = packets[row]
        if packet.verdict != Verdict.HOLD:
            verdict = Verdict(packet.verdict)
            self._released.append((verdict, int(packet.destination), local.frame_of(packet)))

    def _result(self, memory: local.LocalMemory, count: int, decided: list[int]) -> Result:
        self._pass_released(memory)
        released, self._released = self._released, []
        packets = memory.packets
        verdicts = [Verdict(packets[slot].verdict) for slot in range(count)]
        destinations = [int(packets[slot].destination) for slot in range(count)]
        broken = [slot for slot in [*range(count), *memory.made] if not memory.is_whole(slot)]
        reasons: list[str | None] = []
        for slot, verdict in enumerate(verdicts):
            names = self.contexts[decided[slot]].reasons if self.contexts else ()
            number = destinations[slot]
            known = names[number] if number < len(names) else str(number)
            reasons.append(known if verdict is Verdict.DROP else None)
        return Result(
            packets=[memory.frame(slot) for slot in range(count)],
            verdicts=verdicts,
            destinations=destinations,
            reasons=reasons,
            counters={ctx.name: dict(ctx.counters) for ctx in self.contexts},
            originated=[
                (
                    Verdict(packets[slot].verdict),
                    int(packets[slot].destination),
                    memory.frame(slot),
                )
                for slot in memory.made
            ],
            released=released,
            broken=broken,
        )

    def _context(
        self,
        name: str,
        manifest: Manifest | None,
        config: Mapping[str, Any] | str | os.PathLike[str] | None,
    ) -> Context:
        number = len(self._counters)
        counters = bytearray(8 * COUNTERS_MAX)
        self._counters.append(counters)
        wanted = HELD_USUAL if manifest is None else manifest.held_packets
        table = held_table.create(wanted) if wanted else None
        self._held.append(table)
        names = manifest.counters if manifest else [f"c{number}" for number in range(COUNTERS_MAX)]
        return Context(
            name=name,
            instance=f"{name}-test",
            config=_checked(name, manifest, config),
            counters=Counters(names, memoryview(counters).cast("Q")),
            reasons=tuple(manifest.drop_reasons) if manifest else (),
            send_message=lambda to, payload: None,
            held=None if table is None else HeldPackets(held_table.address_of(table)),
            originate=lambda *arguments: self._originate(number, *arguments),
            clock=lambda: self.now_ns,
            output_folder=self._output_folder,
        )

    def _originate(self, number: int, packet: bytes, verdict: int, destination: int) -> bool:
        memory = self._memories[-1] if self._memories else self._new_memory([])
        ctx = self._native_context(memory, number, is_first=True, is_last=True)
        result = local.originate(ctx, packet, verdict, destination)
        if result == -errno.EPERM:
            raise PermissionError("expected the permission originate in the manifest")
        return result == 0

    def _fail(self, error: BaseException) -> None:
        self._error = error


def _checked(
    name: str,
    manifest: Manifest | None,
    config: Mapping[str, Any] | str | os.PathLike[str] | None,
) -> Mapping[str, Any]:
    if manifest is not None:
        return read_config(manifest, config)
    if config is None or isinstance(config, Mapping):
        return config or {}
    raise OnvmError(f"{name}: a configuration file needs a manifest to check it against")


def run(
    nf: NfLike | Sequence[NfLike],
    packets: Frames,
    *,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    reverse: Sequence[bool] | bool = False,
    ports: Sequence[int] | int = 0,
    now_ns: int = START_NS,
    compiled: bool = True,
) -> Result:
    """Set up NFs, send packets through them, and tear them down. See `Runner` for the arguments.

    Example:
        >>> class Nothing(NetworkFunction):
        ...     def process_packet(self, pkt):
        ...         return pkt.drop()
        >>> run(Nothing, [bytes(64)]).verdicts
        [<Verdict.DROP: 1>]
    """
    with Runner(nf, config=config, compiled=compiled) as runner:
        return runner.run(packets, reverse=reverse, ports=ports, now_ns=now_ns)


def load_frames(packets: Frames) -> list[bytes]:
    """Return frames as bytes, from bytes, scapy packets or a pcap file (also gzipped)."""
    if isinstance(packets, (str, os.PathLike)):
        from scapy.utils import RawPcapReader

        with RawPcapReader(os.fspath(packets)) as reader:
            return [bytes(frame) for frame, _ in reader]
    return [bytes(packet) for packet in packets]


def _each(value: Any, count: int) -> list[Any]:
    return [value] * count if isinstance(value, (bool, int)) else list(value)


def _resolve(nf: NfLike) -> tuple[NetworkFunction, Manifest | None, str]:
    if isinstance(nf, str):
        from onvm_sdk._hosting.plugin import load_plugin

        plugin = load_plugin(nf)
        return plugin.load()(), plugin.manifest, nf
    instance = nf() if isinstance(nf, type) else nf
    kind = type(instance)
    if kind.manifest:
        said = class_manifest(kind.__name__, kind.manifest, kind.__qualname__)
        return instance, said, said.name
    try:
        manifest = read_manifest(find_manifest(kind.__module__))
    except (ManifestError, ValueError):  # a class of a test file has none
        return instance, None, kind.__name__.lower()
    return instance, manifest, manifest.name
