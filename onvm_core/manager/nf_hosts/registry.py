"""The registry of NFs: services, their IDs, NF hosts and the instances in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from onvm_core.dataplane.limits import SERVICES_MAX
from onvm_core.dataplane.values import HostCounters
from onvm_core.manager.nf_hosts.codec import Claim, Hello, Steering
from onvm_sdk.errors import ConfigError

__all__ = ["HostState", "Instance", "NfHost", "Registry"]


class HostState(Enum):
    """The states of an NF host's life."""

    ATTACHED = "attached"
    """It has its rings and sets itself up."""
    STANDBY = "standby"
    """It could serve at once, and waits until it is needed."""
    ACTIVE = "active"
    """It serves."""
    DRAINING = "draining"
    """It gets no new flows."""
    DEAD = "dead"
    """It is gone; its counters still count."""


@dataclass(slots=True)
class Instance:
    """One running copy of an NF: a stage of an NF host."""

    service: str
    name: str
    reasons: tuple[str, ...]
    counters: tuple[str, ...]


@dataclass(slots=True)
class NfHost:
    """A process that runs one or several (fused) instances.

    Attributes:
        slot: its number in the data plane.
        pid: the process that attached, by the peer's credentials.
        secret: the secret it attached with; "" if it was not launched here. It identifies the
            launched NF host, even if its launcher has put processes around it.
        last: its final counters; only for a dead host.
        reason: the reason for its death, as text for people.
        is_held: becomes standby once it is ready, instead of active.
        is_kept_back: gets no new flows, because its cluster wants that.
        is_shared: other hosts of its cluster may send it packets of flows that only they know.
        is_asked_to_end: it was stopped, so that its end is no crash.
        drained: its stages whose state may go, as it reports while it drains.
        cpu_before: CPU seconds it had used when packets began to flow.
        cpu_seconds: CPU seconds it had used when it died.
        claims: traffic that it has claimed.
        cpus: the CPUs on which it may run.
        shares_cpu: it has been told that others use its CPU.
        steering: what its NFs say of their flows, by stage.
    """

    slot: int
    pid: int
    instances: list[Instance]
    burst_size: int
    state: HostState = HostState.ATTACHED
    last: HostCounters | None = None
    reason: str = ""
    is_held: bool = False
    is_kept_back: bool = False
    is_shared: bool = False
    is_asked_to_end: bool = False
    drained: set[int] = field(default_factory=set)
    cpu_before: float = 0.0
    cpu_seconds: float = 0.0
    secret: str = field(default="", repr=False)
    claims: list[Claim] = field(default_factory=list)
    cpus: frozenset[int] = frozenset()
    shares_cpu: bool = False
    steering: dict[int, Steering] = field(default_factory=dict)

    @property
    def life(self) -> str:
        """Its state as `NfReport` gives it."""
        if self.state is HostState.DEAD:
            return "stopped" if self.is_asked_to_end else "crashed"
        return str(self.state.value)

    @property
    def is_drained(self) -> bool:
        """True if the state of all of its instances may go."""
        return len(self.drained) == len(self.instances)

    @property
    def services(self) -> tuple[str, ...]:
        """Services of its stages, in order."""
        return tuple(instance.service for instance in self.instances)


@dataclass(slots=True)
class Registry:
    """All services, hosts and instances of one manager, living and dead."""

    hosts: list[NfHost] = field(default_factory=list)
    retired_drops: dict[str, int] = field(default_factory=dict)
    """Drops of dead hosts that are no longer listed."""
    _service_ids: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def service_id(self, service: str) -> int:
        """Number of a service, 1..255; given on first use.

        Raises:
            ConfigError: there are no numbers left.
        """
        if service not in self._service_ids:
            if len(self._service_ids) == SERVICES_MAX - 1:
                raise ConfigError(
                    f"expected at most {SERVICES_MAX - 1} services", field="service", value=service
                )
            self._service_ids[service] = len(self._service_ids) + 1
        return self._service_ids[service]

    @property
    def service_ids(self) -> dict[str, int]:
        """Numbers of all services, by name."""
        return dict(self._service_ids)

    def service_name(self, number: int) -> str:
        """Name of service `number`; the number as text if there is none."""
        for name, known in self._service_ids.items():
            if known == number:
                return name
        return str(number)

    def add(self, slot: int, hello: Hello) -> NfHost:
        """Enter a host that attaches; instances without a name get one."""
        instances = []
        taken = {instance.name for _, instance in self.instances()}
        for stage in hello.stages:
            name = stage.instance
            while not name or name in taken:
                self._numbers[stage.service] = self._numbers.get(stage.service, 0) + 1
                name = f"{stage.service}-{self._numbers[stage.service]}"
            taken.add(name)
            instances.append(Instance(stage.service, name, stage.reasons, stage.counters))
        host = NfHost(slot, hello.pid, instances, hello.burst_size)
        self.hosts.append(host)
        return host

    def living(self) -> Iterator[NfHost]:
        """Hosts that are not dead."""
        return (host for host in self.hosts if host.state is not HostState.DEAD)

    def instances(self) -> Iterator[tuple[NfHost, Instance]]:
        """Instances of living hosts."""
        return ((host, instance) for host in self.living() for instance in host.instances)

    def find(self, name: str) -> list[tuple[NfHost, int]]:
        """Living hosts and stages that are instance `name` or belong to service `name`."""
        return [
            (host, stage)
            for host in self.living()
            for stage, instance in enumerate(host.instances)
            if name in (instance.name, instance.service)
        ]
