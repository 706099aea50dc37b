"""A data plane in memory: for tests of its users, without DPDK, root or packets.

It keeps hosts, chains, ports and peers as the real one does, with the same states and errors. No
packet moves. A test sets the number of packets inside (`FakeHost.reserved`), the flows (`flows`)
and the counters, and reads the effects of the manager's calls.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from onvm_core.dataplane.interface import DataPlane, DataplaneError
from onvm_core.dataplane.limits import (
    CHAIN_LENGTH_MAX,
    CHAINS_MAX,
    HOSTS_MAX,
    LATENCY_BUCKETS,
    PORT_REMOTE,
    SERVICES_MAX,
)
from onvm_core.dataplane.values import (
    NO_SECRET,
    Affinity,
    AttachFiles,
    CaptureCounters,
    CapturePoint,
    ChainSpec,
    DataplaneSettings,
    FlowRecord,
    Fragments,
    GenCounters,
    HostCounters,
    LoadCounters,
    PeerCounters,
    PlaneCounters,
    PortCounters,
    PortOptions,
    PortRule,
    TunnelPort,
)
from onvm_sdk.limits import COUNTERS_MAX, REASONS_MAX, STAGES_MAX

__all__ = ["FakeDataPlane", "FakeHost", "FakePeer", "FakePort", "SlotState"]

DROPS = (
    "no_chain",
    "no_instance",
    "no_path",
    "shed",
    "tx_full",
    "foreign",
    "nf_died",
    "waiting",
    "wrong_hop",
    "forged",
    "replayed",
    "no_key",
    "oversize",
)

NO_LOAD = LoadCounters(0, 0, 0, 0, 0, 0, 0, 0, (0,) * LATENCY_BUCKETS)

Claim = tuple[bytes, int, int, int]


class SlotState(Enum):
    """The data plane's record of a host."""

    ATTACHED = "attached"
    ACTIVE = "active"
    DRAINING = "draining"
    LEAVING = "leaving"


@dataclass(slots=True)
class FakeHost:
    """A slot. A test sets `reserved` (packets inside), `rx`, `load` and `fault`."""

    services: tuple[int, ...]
    state: SlotState = SlotState.ATTACHED
    is_paused: bool = False
    successor: int = 0
    spare_pps: int = 0
    number: int = 0
    attention: int = 0
    """Number of times it was told to look at its socket."""
    shares_cpu: bool = False
    peer: int | None = None
    claims: list[Claim] = field(default_factory=list)
    reserved: int = 0
    rx: int = 0
    fault: int = 0
    limits: tuple[bool, int] = (False, 0)
    load: LoadCounters = NO_LOAD


@dataclass(slots=True)
class FakePort:
    """An open port. A test sets its counters."""

    name: str
    options: PortOptions
    rules: tuple[PortRule, ...] = ()
    rx: int = 0
    tx: int = 0
    n_held: int = 0
    is_finished: bool = False


@dataclass(slots=True)
class FakePeer:
    """Another host. A test sets if it answers."""

    address: bytes
    is_down: bool = False
    rx: int = 0
    tx: int = 0


class FakeDataPlane:
    """A `DataPlane` in memory.

    Attributes:
        hosts: hosts by slot, including those at peers.
        flows: the flows that `read_flows` returns; a host that leaves gives up its flows here too.
        drops: drops by reason.
        successors: numbers of hosts that have ended, and the numbers that have their state.
    """

    def __init__(self) -> None:
        self.settings = DataplaneSettings()
        self.is_running = False
        self.is_over = False
        self.are_sources_paused = False
        self.hosts: dict[int, FakeHost] = {}
        self.ports: dict[int, FakePort] = {}
        self.chains: dict[int, ChainSpec] = {}
        self.wire_sized: set[int] = set()
        self.affinities: dict[int, Affinity] = {}
        self.lifetimes_ms: dict[int, tuple[int, ...]] = {}
        self.fragments: dict[int, Fragments] = {}
        self.peers: dict[int, FakePeer] = {}
        self.captures: dict[int, tuple[CapturePoint, ...]] = {}
        self.successors: dict[int, int] = {}
        self.flows: list[FlowRecord] = []
        self.drops: dict[str, int] = dict.fromkeys(DROPS, 0)
        self._notices = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._memory = os.memfd_create("fake-packets", os.MFD_CLOEXEC)

    @classmethod
    def ready(cls, settings: DataplaneSettings, eal_arguments: Sequence[str]) -> FakeDataPlane:
        """A data plane that is ready to `start`."""
        plane = cls()
        plane.start_environment(eal_arguments)
        plane.init(settings)
        return plane

    # ---- calls of tests ----

    def notify(self) -> None:
        """Make the manager look at hosts and peers."""
        os.eventfd_write(self._notices, 1)

    # ---- lifecycle ----

    def start_environment(self, eal_arguments: Sequence[str]) -> None:
        del eal_arguments

    def init(self, settings: DataplaneSettings) -> None:
        self.settings = settings

    def start(self) -> None:
        self.is_running = True

    def stop(self) -> None:
        self.is_running = False

    def fini(self) -> None:
        if not self.is_over:
            os.close(self._notices)
            os.close(self._memory)
        self.is_over = True

    # ---- hosts ----

    def add_host(
        self, services: Sequence[int], n_loaned: int, numa_node: int | None = None
    ) -> tuple[int, AttachFiles]:
        del numa_node
        if not 1 <= len(services) <= STAGES_MAX or n_loaned > self.settings.ring_length // 2:
            raise DataplaneError(errno.EINVAL, f"{len(services)} stages, {n_loaned} loaned buffers")
        slot = self._free(1, HOSTS_MAX, "NF hosts")
        self.hosts[slot] = FakeHost(tuple(services))
        return slot, AttachFiles(
            memory_fd=self._memory,
            area_fd=os.memfd_create("fake-area", os.MFD_CLOEXEC),
            event_fds=(self._notices,) * self.settings.n_workers,
            buffer_stride=self.settings.data_bytes,
            n_buffers=self.settings.n_buffers,
            first_large=self.settings.n_buffers,
            large_bytes=0,
            memory_bytes=self.settings.n_buffers * self.settings.data_bytes,
            area_bytes=4096,
        )

    def activate_host(self, slot: int) -> None:
        self._move(slot, SlotState.ACTIVE, SlotState.ATTACHED, SlotState.DRAINING)

    def drain_host(self, slot: int) -> None:
        self._move(slot, SlotState.DRAINING, SlotState.ACTIVE)

    def limit_host(self, slot: int, *, reads_only: bool, no_drops: int) -> None:
        self.hosts[slot].limits = (reads_only, no_drops)

    def pause_host(self, slot: int, is_paused: bool) -> None:
        self._serving(slot).is_paused = is_paused

    def leave_host(self, slot: int, successor: int = 0) -> None:
        host = self._serving(slot)
        host.state = SlotState.LEAVING
        host.successor = successor
        host.claims.clear()
        self._redirect(slot, successor)

    def remove_host(self, slot: int) -> HostCounters:
        counters = self.read_host(slot)
        del self.hosts[slot]
        self._redirect(slot, 0)
        return counters

    def raise_attention(self, slot: int) -> None:
        self._host(slot).attention += 1

    def share_cpu(self, slot: int, shares_cpu: bool) -> None:
        self._host(slot).shares_cpu = shares_cpu

    def set_spare_capacity(self, slot: int, spare_pps: int) -> None:
        self._host(slot).spare_pps = spare_pps

    def claim(
        self, slot: int, address: bytes, protocol: int, first_port: int, end_port: int
    ) -> None:
        if not first_port < end_port <= 1 << 16:
            raise DataplaneError(
                errno.EINVAL, f"claim of NF host {slot}: ports [{first_port}, {end_port})"
            )
        self._host(slot).claims.append((address, protocol, first_port, end_port))

    def unclaim(
        self, slot: int, address: bytes, protocol: int, first_port: int, end_port: int
    ) -> None:
        claims = self._host(slot).claims
        if (address, protocol, first_port, end_port) in claims:
            claims.remove((address, protocol, first_port, end_port))

    def read_host(self, slot: int) -> HostCounters:
        host = self._host(slot)
        zeros = (0,) * STAGES_MAX
        return HostCounters(
            rx=(host.rx, 0),
            exits=(zeros, zeros),
            drops=((0,) * REASONS_MAX,) * STAGES_MAX,
            originated=zeros,
            held=zeros,
            hold_refused=zeros,
            lost=0,
            shed=0,
            bad=0,
            peak=0,
            reserved=host.reserved,
            latency=(0,) * LATENCY_BUCKETS,
            packets=zeros,
            busy_cycles=zeros,
            idle_cycles=0,
            sleeps=0,
            loops=0,
            counters=((0,) * COUNTERS_MAX,) * STAGES_MAX,
            fault=host.fault,
        )

    def read_load(self, slot: int) -> LoadCounters:
        return self._host(slot).load

    # ---- chains and flows ----

    def set_chain(self, chain_id: int, spec: ChainSpec) -> None:
        ends = (spec.near_port, spec.far_port)
        is_right = all(self._is_end(port, spec.number) for port in ends)
        if not 1 <= chain_id < CHAINS_MAX or len(spec.services) > CHAIN_LENGTH_MAX or not is_right:
            raise DataplaneError(
                errno.EINVAL,
                f"chain {chain_id}: {len(spec.services)} services, ports {ends[0]} and {ends[1]}",
            )
        self.chains[chain_id] = spec

    def set_wire_sized(self, service: int) -> None:
        self.wire_sized.add(service)

    def set_affinity(self, service: int, affinity: Affinity) -> None:
        self._check_service(service)
        self.affinities[service] = affinity

    def set_fragments(self, service: int, fragments: Fragments) -> None:
        self._check_service(service)
        self.fragments[service] = fragments

    def set_lifetimes(self, service: int, lifetimes_ms: Sequence[int]) -> None:
        self._check_service(service)
        self.lifetimes_ms[service] = tuple(lifetimes_ms)

    def remove_chain(self, chain_id: int) -> None:
        if self.chains.pop(chain_id, None) is None:
            raise DataplaneError(errno.ENOENT, f"there is no chain {chain_id}")

    def succeed_chain(self, chain_id: int, successor: int) -> None:
        if chain_id == successor or not {chain_id, successor} <= self.chains.keys():
            raise DataplaneError(errno.ENOENT, f"there are no chains {chain_id} and {successor}")

    def set_port_rules(self, port: int, rules: Sequence[PortRule]) -> None:
        self._port(port).rules = tuple(rules)

    def read_flows(self, limit: int) -> list[FlowRecord]:
        return self.flows[:limit]

    def read_flow_hosts(self, cursor: int, limit: int) -> tuple[int | None, set[int]]:
        part = self.flows[cursor : cursor + limit]
        slots = {slot for flow in part for slot in flow.hosts}
        return (cursor + limit if len(part) == limit else None), slots

    # ---- ports ----

    def open_port(self, name: str, options: PortOptions) -> int:
        if isinstance(options, TunnelPort) and any(
            isinstance(port.options, TunnelPort) for port in self.ports.values()
        ):
            raise DataplaneError(errno.EEXIST, f"port {name}: there is a tunnel already")
        number = next(n for n in range(len(self.ports) + 1) if n not in self.ports)
        self.ports[number] = FakePort(name, options)
        return number

    def close_port(self, port: int) -> None:
        name = self._port(port).name
        if any(port in (chain.near_port, chain.far_port) for chain in self.chains.values()):
            raise DataplaneError(errno.EBUSY, f"port {name} belongs to a chain")
        del self.ports[port]

    def pause_sources(self, is_paused: bool) -> None:
        self.are_sources_paused = is_paused

    def read_port(self, port: int) -> PortCounters:
        one = self._port(port)
        return PortCounters(
            rx=one.rx,
            rx_bytes=0,
            tx=one.tx,
            tx_bytes=0,
            is_finished=one.is_finished,
            n_held=one.n_held,
            latency=(0,) * LATENCY_BUCKETS,
        )

    def read_gen(self, port: int) -> GenCounters:
        self._port(port)
        zero = dict.fromkeys(GenCounters.__struct_fields__, 0)
        return msgspec.convert({**zero, "is_finished": False, "rtt": (0,) * 128}, GenCounters)

    # ---- peers ----

    def add_peer(self, address: bytes, secret: bytes = NO_SECRET) -> int:
        del secret
        if any(peer.address == address for peer in self.peers.values()):
            raise DataplaneError(errno.EEXIST, "two peers of one address")
        number = max(self.peers, default=0) + 1
        self.peers[number] = FakePeer(address)
        return number

    def remove_peer(self, peer: int) -> None:
        self._peer(peer)
        if any(host.peer == peer for host in self.hosts.values()):
            raise DataplaneError(errno.EBUSY, f"peer {peer} has NF hosts, or an end of a chain")
        del self.peers[peer]

    def add_remote(self, services: Sequence[int], peer: int, number: int) -> int:
        self._peer(peer)
        if any(host.number == number for host in self.hosts.values()):
            raise DataplaneError(errno.EEXIST, f"two NF hosts of number {number}")
        slot = self._free(HOSTS_MAX, 2 * HOSTS_MAX, "NF hosts at peers")
        self.hosts[slot] = FakeHost(tuple(services), SlotState.ACTIVE, number=number, peer=peer)
        return slot

    def remove_remote(self, slot: int, successor: int = 0) -> None:
        if self._host(slot).peer is None:
            raise DataplaneError(errno.ENOENT, f"there is no NF host {slot} at a peer")
        del self.hosts[slot]
        self._redirect(slot, successor)

    def set_successor(self, number: int, successor: int) -> None:
        self.successors[number] = successor

    def set_number(self, slot: int, number: int) -> None:
        self._host(slot).number = number

    def read_peer(self, peer: int) -> PeerCounters:
        one = self._peer(peer)
        return PeerCounters(one.rx, one.tx, None if one.is_down else 1000, one.is_down)

    # ---- captures ----

    def start_capture(
        self,
        points: Sequence[CapturePoint],
        *,
        snap_length: int,
        limit: int,
        ring_bytes: int,
        fd: int,
        filter_text: str = "",
        n_followed: int = 0,
    ) -> int:
        del snap_length, limit, ring_bytes, fd, filter_text, n_followed
        for point in points:
            if point.id not in (self.hosts if point.is_host else self.ports):
                kind = "NF host" if point.is_host else "port"
                raise DataplaneError(
                    errno.ENOENT, f"capture: {point.name}: there is no such {kind}"
                )
        number = max(self.captures, default=0) + 1
        self.captures[number] = tuple(points)
        return number

    def match_filter(self, filter_text: str, frames: Sequence[bytes]) -> list[bool]:
        return [not filter_text for _ in frames]

    def drain_capture(self, capture: int) -> int:
        self.read_capture(capture)
        return 0

    def stop_capture(self, capture: int) -> CaptureCounters:
        last = self.read_capture(capture)
        del self.captures[capture]
        return last

    def read_capture(self, capture: int) -> CaptureCounters:
        if capture not in self.captures:
            raise DataplaneError(errno.ENOENT, f"there is no capture {capture}")
        return CaptureCounters(0, 0, 0, 0, False)

    # ---- counters ----

    def read_plane(self) -> PlaneCounters:
        n_buffers = self.settings.n_buffers
        return PlaneCounters(
            drops=dict(self.drops),
            originated=0,
            new_flows=0,
            learned_flows=0,
            flow_table_full=0,
            flows=len(self.flows),
            idle_cycles=0,
            sleeps=0,
            buffers_total=n_buffers,
            buffers_free=n_buffers,
            buffers_with_nfs=0,
            paths=0,
            closed_rx=0,
            closed_tx=0,
            areas=(),
        )

    def cycles_per_second(self) -> float:
        return 1e9

    def worker_cpu_ns(self, worker: int) -> int:
        del worker
        return 0

    def notice_fd(self) -> int:
        return self._notices

    def latency_bounds_ns(self) -> list[float]:
        return [float(10 * i) for i in range(LATENCY_BUCKETS)]

    # ---- state ----

    def _host(self, slot: int) -> FakeHost:
        if slot not in self.hosts:
            raise DataplaneError(errno.ENOENT, f"there is no NF host {slot}")
        return self.hosts[slot]

    def _serving(self, slot: int) -> FakeHost:
        host = self.hosts.get(slot)
        if host is None or host.state not in (SlotState.ACTIVE, SlotState.DRAINING):
            raise DataplaneError(errno.ENOENT, f"NF host {slot} does not serve")
        return host

    def _move(self, slot: int, to: SlotState, *states: SlotState) -> None:
        host = self.hosts.get(slot)
        if host is None or host.state not in states:
            raise DataplaneError(errno.ENOENT, f"NF host {slot} is not in the state for this")
        host.state = to

    def _port(self, port: int) -> FakePort:
        if port not in self.ports:
            raise DataplaneError(errno.ENOENT, f"port {port} is not open")
        return self.ports[port]

    def _is_end(self, port: int, chain_number: int) -> bool:
        """True if a chain may end there: at a peer only one that has a number in the cluster."""
        if port < PORT_REMOTE:
            return port in self.ports
        return chain_number != 0 and port - PORT_REMOTE in self.peers

    def _peer(self, peer: int) -> FakePeer:
        if peer not in self.peers:
            raise DataplaneError(errno.ENOENT, f"there is no peer {peer}")
        return self.peers[peer]

    def _check_service(self, service: int) -> None:
        if not 1 <= service < SERVICES_MAX:
            raise DataplaneError(errno.EINVAL, f"there is no service {service}")

    def _free(self, first: int, end: int, what: str) -> int:
        for slot in range(first, end):
            if slot not in self.hosts:
                return slot
        raise DataplaneError(errno.ENOSPC, f"all {end - first} slots of {what} are taken")

    def _redirect(self, slot: int, successor: int) -> None:
        """Move the flows of a slot to its successor; without a successor they end."""
        kept = []
        for flow in self.flows:
            if slot not in flow.hosts:
                kept.append(flow)
            elif successor:
                hosts = tuple(successor if host == slot else host for host in flow.hosts)
                kept.append(msgspec.structs.replace(flow, hosts=hosts))
        self.flows = kept


if TYPE_CHECKING:
    _is_one: type[DataPlane] = FakeDataPlane
