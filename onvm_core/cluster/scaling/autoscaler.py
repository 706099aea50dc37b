"""The number of instances of each service in the cluster: the leader asks, the policies answer.

The policies are those of one host (hook `onvm_scaling_policies`); here they see the instances of
all hosts, as the agents report them to each other. A policy's wish becomes requests in the queue:
one for each additional instance, with the host of the busiest first, or one for the end of the
idlest instance.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from onvm_core.cluster.links.peers import PeerLoad
from onvm_core.cluster.scaling.requests import Fence, RequestQueue
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import InstanceNode, RequestNode, ServiceNode
from onvm_core.plugins import load_plugins
from onvm_core.scaling.load import Load
from onvm_core.scaling.policy import ScaleSettings, ScalingPolicy, ServiceLoad, Wish
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["ClusterAutoscaler", "as_load"]

log = logging.getLogger("onvm.cluster.scale")

HOOK = "onvm_scaling_policies"
INTERVAL_S = 0.1
UNKNOWN_S = 5.0


def as_load(load: PeerLoad, seconds: float) -> Load:
    """The load of an instance elsewhere, in the form that a policy gets."""
    utilisation = load.utilisation or 0.0
    packets = int(utilisation * load.capacity_pps * seconds)
    return Load(
        seconds=seconds,
        packets=packets,
        done=packets,
        sheds=load.sheds,
        busy_cycles=0,
        idle_cycles=0,
        cycles_per_packet=0.0,
        occupancy=0.0,
        occupancy_mean=1.0 if load.sheds else 0.0,
        occupancy_peak=0.0,
        p50_us=None,
        p99_us=None,
        utilisation=utilisation,
        capacity_pps=load.capacity_pps or None,
        arrival=load.demand or 0.0,
        is_stuck=False,
    )


class _Service:
    """The state kept for one service.

    Attributes:
        unknown_since_s: since when loads have been missing; None: all are known.
    """

    def __init__(self, node: ServiceNode) -> None:
        self.node = node
        settings = ScaleSettings(
            min=max(node.min, 1),
            max=node.max,
            target=node.target,
            hysteresis=node.hysteresis,
            out_after_s=node.out_after_s,
            in_after_s=node.in_after_s,
            options=node.options,
        )
        self.policy: ScalingPolicy = load_plugins().load(HOOK, node.policy)(settings)
        self.history: deque[ServiceLoad] = deque(maxlen=int(settings.history_s / INTERVAL_S) + 1)
        self.rest_until_s = 0.0
        self.unknown_since_s: float | None = None
        self.has_complained = False


class ClusterAutoscaler:
    """The leader's autoscaler; it keeps nothing that the next leader would miss.

    Args:
        fence: makes a request fail if this agent no longer leads.
        loads: loads of all instances, by number; where one is not heard of, as it was last.
        living: gives the hosts without a session whose instances serve.
    """

    def __init__(
        self,
        queue: RequestQueue,
        fence: Fence,
        loads: Callable[[], Mapping[int, PeerLoad]],
        living: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._queue = queue
        self._fence = fence
        self._loads = loads
        self._living = living
        self._services: dict[str, _Service] = {}
        self._failed: dict[str, ServiceNode] = {}
        self._count = 0

    def turn(self, snapshot: Snapshot, election_number: int) -> None:
        """Check all services, and request the numbers that their policies want.

        Raises:
            ClusterError: this agent no longer leads, or ZooKeeper does not answer.
        """
        for name in self._services.keys() - snapshot.services.keys():
            del self._services[name]
        for name, node in snapshot.services.items():
            service = self._services.get(name)
            if service is None or service.node != node:
                if self._failed.get(name) == node:
                    continue
                try:
                    service = self._services[name] = _Service(node)
                except (OnvmError, ConfigError) as error:
                    self._failed[name] = node
                    log.warning("service %s: %s", name, error)
                    continue
            self._look(name, service, snapshot, election_number)

    def _look(self, name: str, service: _Service, snapshot: Snapshot, election_number: int) -> None:
        running = [
            (host, one)
            for host, node in snapshot.instances.items()
            for one in node.instances
            if name in one.services and one.state == "active" and _is_there(snapshot, host)
        ]
        away = [
            one
            for host in self._living()
            if host in snapshot.away
            for one in snapshot.away[host].instances.instances
            if name in one.services and one.state == "active"
        ]
        pending = [one for one in snapshot.requests.values() if one.service == name]
        now = time.monotonic()
        loads = self._loads()
        count = len(running) + len(away)
        known = [
            as_load(loads[one.number], INTERVAL_S)
            for one in (*(one for _, one in running), *away)
            if one.number in loads
        ]
        known += self._assume(name, service, known, count, now)
        service.history.append(ServiceLoad(now, tuple(known), count))
        if pending or now < service.rest_until_s:
            return
        node = service.node
        if count < node.min:
            wish = Wish(node.min, f"at least {node.min}")
        elif not known or len(known) < count:
            return
        else:
            wish = service.policy.decide(list(service.history))
        wanted = min(max(wish.instances, node.min), node.max)
        if wanted == count or (wanted < count and not running):
            return
        service.rest_until_s = now + node.cooldown_s
        if wanted > count:
            for _ in range(wanted - count):
                self._ask(name, node, wish.reason, _busiest(running, loads), "", election_number)
        else:
            host, idlest = min(running, key=lambda one: _idleness(one[1], loads))
            self._ask(name, node, wish.reason, [host], idlest.name, election_number)

    def _assume(
        self, name: str, service: _Service, known: list[Load], count: int, now: float
    ) -> list[Load]:
        """Loads for instances of which none was ever heard: after a while, the mean of the others.

        A leader that has just begun has not heard of all; it waits a little.
        """
        missing = count - len(known)
        if not missing:
            service.unknown_since_s = None
            service.has_complained = False
            return []
        if service.unknown_since_s is None:
            service.unknown_since_s = now
        if now - service.unknown_since_s < UNKNOWN_S or not known:
            return []
        if not service.has_complained:
            service.has_complained = True
            log.warning(
                "%s: the load of %d of %d instances is not known; it counts as the mean of the "
                "others",
                name,
                missing,
                count,
            )
        mean = sum(load.utilisation for load in known) / len(known)
        return [replace(known[0], utilisation=mean, arrival=mean, sheds=0)] * missing

    def _ask(
        self,
        name: str,
        node: ServiceNode,
        reason: str,
        preferred: list[str],
        stop: str,
        election_number: int,
    ) -> None:
        self._count += 1
        now = time.time()
        request = RequestNode(
            key=f"{name}-{election_number}-{self._count}",
            service=name,
            reason=reason,
            preferred=preferred,
            deadline=round(now + node.request_s, 3),
            made=round(now, 3),
            within_s=node.request_s,
            placement=node.placement,
            stop=stop,
        )
        log.info("%s: %s%s", request.key, "one less, " if stop else "one more, ", reason)
        self._queue.put(request, self._fence)


def _is_there(snapshot: Snapshot, host: str) -> bool:
    return (
        host in snapshot.hosts
        and snapshot.hosts[host].state == "up"
        and host not in snapshot.draining
    )


def _busiest(running: list[tuple[str, InstanceNode]], loads: Mapping[int, PeerLoad]) -> list[str]:
    """Hosts; the host of the busiest instance comes first."""
    ranked = sorted(running, key=lambda one: _idleness(one[1], loads), reverse=True)
    return list(dict.fromkeys(host for host, _ in ranked))


def _idleness(one: InstanceNode, loads: Mapping[int, PeerLoad]) -> tuple[float, int]:
    load = loads.get(one.number)
    if load is None:
        return 0.0, -one.number
    return load.demand or load.utilisation or 0.0, -one.number
