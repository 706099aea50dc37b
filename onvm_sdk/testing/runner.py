"""Run NFs in this process, without a manager, on packets in private memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsBytes

from onvm_sdk._hosting.lists import Question
from onvm_sdk._hosting.reconfigure import can_reconfigure, use
from onvm_sdk._hosting.stage import Stage, build_stage
from onvm_sdk._native import local
from onvm_sdk.errors import ManifestError, OnvmError
from onvm_sdk.limits import COUNTERS_MAX
from onvm_sdk.manifest import (
    BURST_USUAL,
    LOANED_USUAL,
    Manifest,
    find_manifest,
    read_config,
    read_manifest,
)
from onvm_sdk.nf import Context, Counters, NetworkFunction
from onvm_sdk.verdict import Verdict

__all__ = ["Result", "Runner", "run"]

NfLike = NetworkFunction | type[NetworkFunction] | str
Frames = str | os.PathLike[str] | Iterable[bytes | SupportsBytes]
_F_REVERSE = 1
_ROOM = 512


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
    originated: list[tuple[Verdict, int, bytes]] = field(default_factory=list)
    """Packets that the NFs created: verdict, destination, bytes."""
    broken: list[int] = field(default_factory=list)
    """Numbers of packets around which an NF wrote into other memory."""

    @property
    def forwarded(self) -> list[bytes]:
        """Packets that were not dropped."""
        pairs = zip(self.packets, self.verdicts, strict=True)
        return [packet for packet, verdict in pairs if verdict is not Verdict.DROP]


class Runner:
    """NFs that are set up. Call ``run`` as often as you like; the NFs keep their state.

    Args:
        nfs: one NF or several fused ones, in chain order: instances, classes, or names of
            installed NFs.
        config: the configuration, or for several NFs a table by NF name.
        compiled: False runs kernels interpreted.

    Lifetime: a context manager; its exit tears the NFs down.
    """

    def __init__(
        self,
        nfs: NfLike | Sequence[NfLike],
        *,
        config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        compiled: bool = True,
    ) -> None:
        many = [nfs] if isinstance(nfs, (NetworkFunction, type, str)) else list(nfs)
        self._error: BaseException | None = None
        self._compiled = compiled
        self._manifests: list[Manifest | None] = []
        self._memory: list[bytearray] = []
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
        now_ns: int = 1_000_000_000,
        burst_size: int = BURST_USUAL,
    ) -> Result:
        """Send packets through the NFs.

        Args:
            packets: bytes, scapy packets, or the path of a pcap file.
            reverse: whether packets travel the chain backwards, for all or for each.
            ports: ingress ports, for all or for each.
            flow_hashes: flow hashes, for all or for each.
            now_ns: the time that NFs see, nanoseconds.
            burst_size: packets per call, up to 2048.

        Raises:
            BaseException: any exception that a handler raised.
        """
        frames = load_frames(packets)
        longest = max(map(len, frames), default=0)
        memory = local.LocalMemory(
            frames,
            nb_loaned=LOANED_USUAL,
            slot_bytes=min(max(2048, longest + 2 * _ROOM), 65535 + local.HEADROOM),
        )
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
        decided = [0] * len(frames)
        for first in range(0, len(frames), burst_size):
            burst = list(slots[first : first + burst_size])
            is_reverse = [bool(memory.packets[slot].flags & _F_REVERSE) for slot in burst]
            for direction in (False, True):
                part = [
                    slot for slot, is_r in zip(burst, is_reverse, strict=True) if is_r is direction
                ]
                self._pass(memory, part, direction, now_ns, decided)
        return self._result(memory, len(frames), decided)

    def _pass(
        self,
        memory: local.LocalMemory,
        slots: list[int],
        is_reverse: bool,
        now_ns: int,
        decided: list[int],
    ) -> None:
        way = list(range(len(self.stages)))
        if is_reverse:
            way.reverse()
        for number in way:
            if not slots:
                return
            stage = self.stages[number]
            ctx = memory.context(
                stage.state,
                now_ns,
                self._memory[number],
                is_first=number == way[0],
                is_last=number == way[-1],
            )
            made = len(memory.made)
            local.call(stage.function, ctx, memory.packets, slots)
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            for slot in slots:
                decided[slot] = number
            decided.extend([number] * (max(memory.made[made:], default=-1) + 1 - len(decided)))
            slots = [
                slot
                for slot in [*slots, *memory.made[made:]]
                if memory.packets[slot].verdict == Verdict.NEXT
            ]

    def _result(self, memory: local.LocalMemory, count: int, decided: list[int]) -> Result:
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
            broken=broken,
        )

    def _context(
        self,
        name: str,
        manifest: Manifest | None,
        config: Mapping[str, Any] | str | os.PathLike[str] | None,
    ) -> Context:
        counters = bytearray(8 * COUNTERS_MAX)
        self._memory.append(counters)
        names = manifest.counters if manifest else [f"c{number}" for number in range(COUNTERS_MAX)]
        return Context(
            name=name,
            instance=f"{name}-test",
            config=_checked(name, manifest, config),
            counters=Counters(names, memoryview(counters).cast("Q")),
            reasons=tuple(manifest.drop_reasons) if manifest else (),
            send_message=lambda to, payload: None,
        )

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
    now_ns: int = 1_000_000_000,
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
    try:
        manifest = read_manifest(find_manifest(kind.__module__))
    except (ManifestError, ValueError):  # a class of a test file has none
        return instance, None, kind.__name__.lower()
    return instance, manifest, manifest.name
