"""The settings of the data plane's start: its part of ``onvm.toml``, CPUs, DPDK's arguments.

Imports little, because a manager begins with this while the rest of it is still being imported
(`early_start`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from onvm_core.dataplane.limits import RING_LENGTH_MIN
from onvm_core.dataplane.values import DataplaneSettings, IdlePolicy
from onvm_core.manager.startup.cards import EAL_MIB
from onvm_core.manager.startup.numa import cpu_nodes, device_node, memory_nodes, near_cpus
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import HEADROOM, WORKERS_MAX

__all__ = [
    "BUFFERS_MAX",
    "BUFFERS_MIN",
    "BUFFER_SIZE_MAX",
    "BUFFER_SIZE_MIN",
    "DEFAULTS",
    "DataplaneConfig",
    "buffer_bytes",
    "check_dataplane",
    "eal_arguments",
    "idle_policy",
    "split_cpus",
    "worker_nodes",
]

DEFAULTS = DataplaneSettings()
BUFFERS_MIN, BUFFERS_MAX = 1024, 1 << 20
BUFFER_SIZE_MIN, BUFFER_SIZE_MAX = 256, 60000
_UNIT_BYTES, _MBUF_BYTES, _LARGE_BYTES = 64, 128, 65535
"""The size of a buffer is an odd multiple of a unit; its mbuf lies elsewhere."""


class DataplaneConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[dataplane]``."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=WORKERS_MAX)] = DEFAULTS.n_workers
    """Threads that move packets, each on a CPU of its own."""
    cpus: list[Annotated[int, msgspec.Meta(ge=0)]] = []
    """One CPU for each worker; empty: CPUs near the ports' devices, or the first ones."""
    buffers: Annotated[int, msgspec.Meta(ge=BUFFERS_MIN, le=BUFFERS_MAX)] = DEFAULTS.n_buffers
    """Packet buffers on each NUMA node that has workers or ports."""
    large_buffers: Annotated[int, msgspec.Meta(ge=64, le=8192)] = DEFAULTS.n_large_buffers
    """Buffers of 64 KiB, for packets that the kernel has merged."""
    buffer_size: Annotated[int, msgspec.Meta(ge=BUFFER_SIZE_MIN, le=BUFFER_SIZE_MAX)] = (
        DEFAULTS.data_bytes
    )
    """Bytes of the largest packet that a buffer has room for."""
    ring_length: Annotated[int, msgspec.Meta(ge=RING_LENGTH_MIN, le=16384)] = DEFAULTS.ring_length
    """Packets that a ring to or from an NF holds; a power of two."""
    idle: Literal["adaptive", "busy"] = "adaptive"
    """adaptive: workers and NFs without packets sleep; busy: they poll."""
    flows: Annotated[int, msgspec.Meta(ge=1024, le=1 << 24)] = DEFAULTS.flow_capacity
    """Flows of the flow table."""
    flow_idle_s: Annotated[float, msgspec.Meta(ge=0.001, le=86400)] = DEFAULTS.flow_idle_ms / 1000
    """A flow without packets is forgotten after this time."""
    huge_pages: bool = DEFAULTS.use_huge_pages
    """True if packet memory has huge pages where the host has some."""
    high_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = DEFAULTS.high_percent
    """Share of an NF's room above which it counts as loaded."""
    low_percent: Annotated[int, msgspec.Meta(ge=0, le=99)] = DEFAULTS.low_percent
    """Share of an NF's room below which it no longer does."""

    @property
    def is_busy(self) -> bool:
        """True if workers and NFs are not to sleep."""
        return self.idle == "busy"

    def settings(self, ports: Iterable[str] = ()) -> DataplaneSettings:
        """Convert the settings to the form that the data plane takes.

        Args:
            ports: URIs; the nodes of their devices have packet memory as well.
        """
        uris = list(ports)
        workers, others = split_cpus(self.workers, self.cpus, uris)
        nodes = worker_nodes(workers)
        return DataplaneSettings(
            n_workers=self.workers,
            worker_nodes=nodes,
            memory_nodes=memory_nodes(nodes, map(_node_of, uris)),
            n_buffers=self.buffers,
            n_large_buffers=self.large_buffers,
            data_bytes=self.buffer_size,
            ring_length=self.ring_length,
            idle_policy=idle_policy(self.is_busy, workers, others),
            flow_capacity=self.flows,
            flow_idle_ms=int(self.flow_idle_s * 1000),
            use_huge_pages=self.huge_pages,
            high_percent=self.high_percent,
            low_percent=self.low_percent,
        )


def check_dataplane(plane: DataplaneConfig, path: Path) -> None:
    """Check what msgspec cannot.

    Raises:
        ConfigError: a mistake in the file at `path`.
    """
    if plane.ring_length & (plane.ring_length - 1):
        raise ConfigError(
            "expected a power of two",
            file=path,
            field="dataplane.ring_length",
            value=plane.ring_length,
        )
    if plane.low_percent >= plane.high_percent:
        raise ConfigError(
            f"expected less than high_percent ({plane.high_percent})",
            file=path,
            field="dataplane.low_percent",
            value=plane.low_percent,
        )
    if not plane.cpus:
        return
    if len(plane.cpus) != plane.workers:
        raise ConfigError(
            f"expected one CPU for each of {plane.workers} workers",
            file=path,
            field="dataplane.cpus",
            value=plane.cpus,
        )
    usable = sorted(os.sched_getaffinity(0))
    for cpu in plane.cpus:
        if cpu not in usable:
            raise ConfigError(
                f"expected CPUs that may be used here ({', '.join(map(str, usable))})",
                file=path,
                field="dataplane.cpus",
                value=cpu,
            )


def split_cpus(
    n_workers: int, wanted: Sequence[int] = (), ports: Iterable[str] = ()
) -> tuple[list[int], list[int]]:
    """CPUs for workers and for NFs, from those this process may use.

    Workers get the CPUs `wanted`, or those near the devices of `ports` (URIs), or the first ones;
    NFs get the rest, or all if there is no rest.
    """
    cpus = sorted(os.sched_getaffinity(0))
    workers = list(wanted) or near_cpus(n_workers, cpus, cpu_nodes(), map(_node_of, ports))
    return workers, [cpu for cpu in cpus if cpu not in workers] or cpus


def idle_policy(is_busy: bool, workers: Iterable[int], others: Iterable[int]) -> IdlePolicy:
    """The idle policy of workers and NFs.

    Args:
        is_busy: they are not to sleep.
        workers, others: the CPUs of `split_cpus`. If NFs have no others than those of workers,
            each would wait for the other to sleep, so all do.
    """
    return IdlePolicy.BUSY if is_busy and {*others} - {*workers} else IdlePolicy.ADAPTIVE


def worker_nodes(workers: Sequence[int]) -> tuple[int, ...]:
    """NUMA node of each worker, by its CPU."""
    known = cpu_nodes()
    return tuple(known.get(cpu, 0) for cpu in workers)


def _node_of(uri: str) -> int | None:
    scheme, _, rest = uri.partition(":")
    return device_node(scheme, rest.partition("?")[0])


def buffer_bytes(data_bytes: int) -> int:
    """Memory that a buffer for packets of `data_bytes` takes, with its mbuf; a test compares it
    with C.
    """
    units = -(-(data_bytes + HEADROOM) // _UNIT_BYTES) | 1
    return units * _UNIT_BYTES + _MBUF_BYTES


def packet_memory_bytes(settings: DataplaneSettings) -> int:
    """Memory of all buffers, large ones included, with their mbufs; cards must reach all of it."""
    small = buffer_bytes(settings.data_bytes)
    stride = small - _MBUF_BYTES
    large = -(-_LARGE_BYTES // stride) * stride + _MBUF_BYTES
    return (
        settings.n_buffers * len(settings.memory_nodes) * small + settings.n_large_buffers * large
    )


def eal_arguments(
    worker_cpus: Sequence[int], *, cards: Sequence[str] | None = None, is_physical: bool = False
) -> list[str]:
    """Arguments of DPDK's environment for workers on the given CPUs.

    Lcore 0 is the control thread and may run on any CPU; worker i is lcore i + 1.

    Args:
        cards: PCI addresses of the devices to use; empty: all that DPDK can use; None: none. Each
            device belongs to one process, so a manager must not touch those of others.
        is_physical: the cards use physical addresses, and all memory is huge pages.
    """
    everywhere = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    lcores = [f"0@({everywhere})"]
    lcores += [f"{i + 1}@{cpu}" for i, cpu in enumerate(worker_cpus)]
    memory = ["--in-memory", "--iova-mode=pa"] if is_physical else ["--no-huge", "--iova-mode=va"]
    return [
        "onvm",
        *memory,
        "--no-shconf",
        "--no-telemetry",
        "--log-level=4",
        "--log-level=pmd.net.tap:2",
        "-m",
        str(EAL_MIB),
        "--lcores",
        ",".join(lcores),
        *(["--no-pci"] if cards is None else []),
        *(argument for card in cards or () for argument in ("-a", card)),
    ]
