"""Scenarios of the suite "cluster" without ZooKeeper: a hop at a peer against a local one.

Two managers on loopback addresses of this machine act as two hosts. This one has both ends of the
chain. Its NF runs here, or at the other manager, which is a separate process. NSH and the kernel's
UDP work as between machines. The wire is missing, and the other manager's worker shares its core
with the NF.
"""

from __future__ import annotations

import ctypes
import ipaddress
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from onvm_core.bench.bench_nf import start_nf
from onvm_core.bench.scenario import Scenario
from onvm_core.dataplane.limits import PORT_REMOTE
from onvm_core.dataplane.values import (
    DataplaneSettings,
    GenPort,
    IdlePolicy,
    NullPort,
    TunnelPort,
    TunnelSecurity,
)
from onvm_core.manager.api.directory import temporary_directory
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts.registry import HostState
from onvm_core.manager.reporting import latency_of
from onvm_core.manager.startup.environment import split_cpus
from onvm_sdk.errors import OnvmError

__all__ = ["KINDS"]

HERE, THERE = (ipaddress.ip_address(text).packed for text in ("127.111.0.1", "127.111.0.2"))
VNI, CHAIN, NUMBER = 0x6E66, 1, 1
PEER = 1
"""The only peer's ID."""
SECRET = b"a secret of the two, 32 bytes it"
SERVICE = "w"
WAIT_MAX_S = 20.0
PR_SET_PDEATHSIG = 1


def _nf_cpu() -> int:
    """A CPU without a worker, if there is one: the peer's worker has the first of the others."""
    others = split_cpus(1)[1]
    return others[-1]


@contextmanager
def _manager(scenario: Scenario, *, is_peer: bool = False) -> Iterator[Manager]:
    workers = split_cpus(1)[1][:1] if is_peer else split_cpus(1)[0]
    settings = DataplaneSettings(
        ring_length=4096,
        n_buffers=16384,
        idle_policy=IdlePolicy.BUSY if scenario.is_busy else IdlePolicy.ADAPTIVE,
    )
    with (
        temporary_directory() as directory,
        Manager(Path(directory), settings, workers) as manager,
    ):
        yield manager


def _until(manager: Manager, is_done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_MAX_S
    while not is_done():
        manager.poll(0.005)
        if time.monotonic() > deadline:
            raise OnvmError(f"{what}: not within {WAIT_MAX_S:g} s")


def _tunnel(scenario: Scenario, address: bytes) -> TunnelPort:
    return TunnelPort(address, VNI, TunnelSecurity[scenario.data_security.upper()])


def _start_nf(manager: Manager) -> subprocess.Popen[bytes]:
    process = start_nf("c", manager.attach_path, [SERVICE], 64, _nf_cpu())
    _until(
        manager,
        lambda: any(host.state is HostState.ACTIVE for host in manager.registry.living()),
        "NF ready",
    )
    return process


def _serve_peer(scenario: Scenario) -> dict[str, float]:
    """Act as the other host until the first one ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with _manager(scenario, is_peer=True) as manager:
        manager.plane.open_port("cluster", _tunnel(scenario, THERE))
        end = PORT_REMOTE | manager.plane.add_peer(HERE, SECRET)
        if scenario.is_bare:
            out = manager.plane.open_port("out", GenPort(role="server"))
            manager.set_chain(1, end, out, [], cluster_number=CHAIN)
            while True:  # the first manager ends this process
                manager.poll(0.1)
        nf = _start_nf(manager)
        (host,) = manager.registry.living()
        manager.plane.set_number(host.slot, NUMBER)
        manager.set_chain(1, end, end, [SERVICE], cluster_number=CHAIN)
        while nf.poll() is None:
            manager.poll(0.1)
    return {}


def _serve_sink(scenario: Scenario) -> dict[str, float]:
    """Swallow what comes, and write time and packets twenty times a second, until killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with _manager(scenario, is_peer=True) as manager:
        manager.plane.open_port("cluster", _tunnel(scenario, THERE))
        end = PORT_REMOTE | manager.plane.add_peer(HERE, SECRET)
        sink = manager.plane.open_port("out", NullPort(is_source=False))
        manager.set_chain(1, end, sink, [], cluster_number=CHAIN)
        while True:
            manager.poll(0.05)
            print(f"{time.monotonic()} {manager.plane.read_port(sink).tx}", flush=True)


@contextmanager
def _bed(scenario: Scenario, told: IO[str] | None = None) -> Iterator[Manager]:
    """A manager with its service here, or at a peer.

    Args:
        told: gets what the other manager writes.
    """
    with _manager(scenario) as manager:
        if not scenario.is_remote:
            nf = _start_nf(manager)
            try:
                yield manager
            finally:
                nf.kill()
                nf.wait()
            return
        other = subprocess.Popen(
            [sys.executable, "-P", "-m", "onvm_core.bench.measure"],
            stdin=subprocess.PIPE,
            stdout=told,
        )
        try:
            assert other.stdin is not None
            kind = "remote_sink" if scenario.kind == "remote_link" else "remote_peer"
            twin = msgspec.structs.replace(scenario, kind=kind)
            other.stdin.write(msgspec.json.encode(twin))
            other.stdin.close()
            manager.plane.open_port("cluster", _tunnel(scenario, HERE))
            peer = manager.plane.add_peer(THERE, SECRET)
            _until(
                manager,
                lambda: (
                    manager.plane.read_peer(peer).heard_us is not None or other.poll() is not None
                ),
                "the other manager",
            )
            if not scenario.is_bare:
                service = manager.registry.service_id(SERVICE)
                manager.plane.add_remote([service], peer, NUMBER)
            yield manager
        finally:
            other.kill()
            other.wait()


def _chain(manager: Manager, scenario: Scenario, near: int, far: int) -> None:
    manager.set_chain(1, near, far, [SERVICE], cluster_number=CHAIN if scenario.is_remote else 0)


def _hop(scenario: Scenario) -> dict[str, float]:
    """Packets per second that come back under full load, of 1,000 flows."""
    with _bed(scenario) as manager:
        far = manager.plane.open_port("out", NullPort(is_source=False))
        source = NullPort(n_flows=1000, rate_pps=scenario.rate_pps, size=scenario.frame_bytes)
        near = manager.plane.open_port("in", source)
        _chain(manager, scenario, near, far)
        _until(manager, lambda: manager.plane.read_port(far).tx > 1000, "packets")
        _pass_time(manager, scenario.warmup_s)
        received, sent = manager.plane.read_port(near).rx, manager.plane.read_port(far).tx
        begin = time.perf_counter()
        _pass_time(manager, scenario.seconds)
        elapsed = time.perf_counter() - begin
        received = manager.plane.read_port(near).rx - received
        sent = manager.plane.read_port(far).tx - sent
    return {"mpps": sent / elapsed / 1e6, "share": sent / max(received, 1)}


def _link(scenario: Scenario) -> dict[str, float]:
    """Packets per second that reach a peer under full load: one worker sends, one receives."""
    with tempfile.TemporaryFile("w+") as told:
        with _bed(scenario, told) as manager:
            source = NullPort(n_flows=1000, rate_pps=scenario.rate_pps, size=scenario.frame_bytes)
            near = manager.plane.open_port("in", source)
            manager.set_chain(1, near, PORT_REMOTE | PEER, [], cluster_number=CHAIN)
            _pass_time(manager, scenario.warmup_s + scenario.seconds)
        told.seek(0)
        lines = [line.split() for line in told]
    counted = [(float(when), int(n)) for when, n in lines]
    end, received = counted[-1]
    begin, before = next(one for one in counted if one[0] > end - scenario.seconds)
    mpps = (received - before) / (end - begin) / 1e6
    return {"mpps": mpps, "gbps": mpps * scenario.frame_bytes * 8 / 1e3}


def _rtt(scenario: Scenario) -> dict[str, float]:
    """Time from a request to its answer at 10,000 packets/s: through the NF both ways, or to a
    server at the peer.
    """
    with _bed(scenario) as manager:
        near = manager.plane.open_port("in", GenPort(role="client", n_flows=50, rate_pps=10_000))
        if scenario.is_bare:
            manager.set_chain(1, near, PORT_REMOTE | PEER, [], cluster_number=CHAIN)
        else:
            far = manager.plane.open_port("out", GenPort(role="server"))
            _chain(manager, scenario, near, far)
        _until(manager, lambda: manager.plane.read_gen(near).completed > 100, "connections")
        before = manager.plane.read_gen(near).rtt
        _pass_time(manager, scenario.seconds)
        after = manager.plane.read_gen(near).rtt
    histogram = [now - then for now, then in zip(after, before, strict=True)]
    latency = latency_of(manager.plane, histogram)
    return {
        "p50_us": latency.p50_us or 0.0,
        "p99_us": latency.p99_us or 0.0,
    }


def _pass_time(manager: Manager, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        manager.poll(min(left, 0.1))


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "remote_peer": _serve_peer,
    "remote_sink": _serve_sink,
    "remote_hop": _hop,
    "remote_link": _link,
    "remote_rtt": _rtt,
}
