"""A manager for the scenarios of the suite "elastic": it launches, scales and heals by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onvm_core.dataplane.values import DataplaneSettings, NullPort
from onvm_core.launch.launcher import DEFAULT_LAUNCHER, Launchers
from onvm_core.manager.api.directory import temporary_directory
from onvm_core.manager.config.extensions import Extensions
from onvm_core.manager.config.onvm_toml import Config
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.placement.allocator import load_policy
from onvm_core.manager.placement.policy import DEFAULT_POLICY
from onvm_core.manager.service.automation import Automation
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_core.scaling.policy import UtilisationPolicy
from onvm_sdk.errors import OnvmError

__all__ = ["SERVICE", "Bed", "running", "sent_pps"]

WAIT = "onvm_core.bench.nfs:Wait"
SERVICE = "w"
RING_LENGTH = 256
WAIT_MAX_S = 20.0


class Bed:
    """The parts of `onvm up`, without its sockets for commands."""

    def __init__(
        self, directory: Path, scale: dict[str, ScaleConfig], instances: Sequence[str], nf: str
    ) -> None:
        settings = DataplaneSettings(ring_length=RING_LENGTH, n_buffers=4096, flow_capacity=1 << 21)
        self.deployment = Deployment(
            directory,
            settings,
            kinds={},
            package=lambda name: None,
            launchers=Launchers(),
            placement=load_policy(DEFAULT_POLICY),
        )
        self.plane = self.deployment.plane
        self.supervisor = Supervisor(directory, self.deployment, lambda event: None)
        policies = {name: UtilisationPolicy(one.settings()) for name, one in scale.items()}
        self.automation = Automation(
            "bench",
            self.deployment,
            self.supervisor,
            Config(scale=scale),
            Extensions(policies=dict(policies)),
            lambda event: None,
        )
        self.deployment.on_host_change = self._on_host_change
        self.gone: dict[int, float] = {}
        for name in instances:
            self.launch(nf, name)
        self.until(lambda: len(self.serving()) == len(instances), "NFs serve")
        self.far = self.plane.open_port("out", NullPort(is_source=False))

    def launch(
        self, nf: str, name: str, launcher: str = DEFAULT_LAUNCHER, service: str = SERVICE
    ) -> None:
        self.supervisor.run(WantedHost.make((nf,), (service,), (name,), {}, launcher=launcher))

    def close(self) -> None:
        self.automation.close()
        self.supervisor.stop_all()
        self.deployment.close()

    def _on_host_change(self, host: NfHost) -> None:
        if host.state is HostState.DEAD:
            self.gone[host.pid] = time.perf_counter()
        self.automation.on_host_change(host)

    def turn(self) -> None:
        """As `Service.run` does."""
        self.deployment.poll(self.automation.poll_s)
        self.supervisor.turn()
        self.automation.turn()

    def run(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.turn()

    def until(self, is_true: Callable[[], bool], what: str) -> None:
        deadline = time.perf_counter() + WAIT_MAX_S
        while not is_true():
            self.turn()
            if time.perf_counter() > deadline:
                raise OnvmError(f"{what}: not within {WAIT_MAX_S:g} s")

    def serving(self, service: str = SERVICE) -> list[NfHost]:
        return self.supervisor.serving(service)

    def source(self, name: str, flows: int, rate_pps: int) -> int:
        return self.plane.open_port(name, NullPort(n_flows=flows, rate_pps=rate_pps))

    def chain(self, near: int, services: Sequence[str] = (SERVICE,)) -> None:
        self.deployment.manager.set_chain(1, near, self.far, services)

    def sent(self) -> int:
        """Number of packets sent so far."""
        return self.plane.read_port(self.far).tx

    def sent_pps(self, seconds: float) -> float:
        """Packets sent per second, measured over `seconds`."""
        return sent_pps(self.sent, self.run, seconds)


@contextmanager
def running(
    scale: dict[str, ScaleConfig], instances: Sequence[str], nf: str = WAIT
) -> Iterator[Bed]:
    """A bed in which all `instances` of `nf` serve; a context manager."""
    with temporary_directory() as directory:
        bed = Bed(Path(directory), scale, instances, nf)
        try:
            yield bed
        finally:
            bed.close()


def sent_pps(sent: Callable[[], int], run: Callable[[float], None], seconds: float) -> float:
    """Packets sent per second, measured over `seconds` of the wall clock.

    Args:
        sent: returns the number of packets sent so far.
        run: lets time pass, in seconds.
    """
    count, begin = sent(), time.perf_counter()
    run(seconds)
    return (sent() - count) / (time.perf_counter() - begin)
