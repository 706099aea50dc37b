"""The captures that run in a manager, by number."""

from __future__ import annotations

from pathlib import Path

import msgspec

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.messages import TraceNames
from onvm_core.manager.captures.capture import Capture, CapturePoint
from onvm_core.manager.captures.filters import check_filter
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_sdk.errors import ConfigError

__all__ = ["Captures"]

POINTS_MAX = 64
"""Points of one capture; see ``native/dataplane/ports/capture.h``."""


class Captures:
    """Starts, drains and ends captures for the control socket.

    Threads: the manager's.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._running: dict[int, tuple[Capture, str]] = {}
        self._next = 1

    def start(self, request: m.CaptureStartRequest) -> m.CaptureReply:
        """Begin a capture.

        Raises:
            ConfigError: there is no such port or instance, or the file cannot be made.
        """
        points = self._all_points() if request.name is None else self._points(request)
        if request.filter:
            check_filter(self._deployment.plane, request.filter)
        try:
            capture = Capture(
                self._deployment.plane,
                Path(request.path),
                points,
                snap_length=request.snap_length,
                limit=request.limit,
                filter_text=request.filter,
                n_followed=request.follow,
            )
        except OSError as error:
            raise ConfigError(
                f"expected a file that can be written: {error.strerror}",
                field="-o",
                value=request.path,
            ) from None
        number, self._next = self._next, self._next + 1
        self._running[number] = (capture, request.path)
        names = self._names() if request.follow else None
        return msgspec.structs.replace(self._show(number), names=names)

    def read(self, request: m.CaptureReadRequest) -> m.CaptureReply:
        """The progress of a capture."""
        self._find(request.number)
        return self._show(request.number)

    def stop(self, request: m.CaptureStopRequest) -> m.CaptureReply:
        """End a capture; its file is then complete."""
        capture = self._find(request.number)
        capture.stop()
        reply = self._show(request.number)
        del self._running[request.number]
        return reply

    def turn(self) -> bool:
        """Write the captured packets; return True if there were any."""
        return sum(capture.drain() for capture, _ in self._running.values()) > 0

    def close(self) -> None:
        """End all captures."""
        for capture, _ in self._running.values():
            capture.stop()
        self._running.clear()

    def _all_points(self) -> list[CapturePoint]:
        ports = [
            CapturePoint(name, self._deployment.port_number(name), is_in=True, is_out=True)
            for name in self._deployment.ports
        ]
        hosts = [
            CapturePoint(_label(host), host.slot, is_host=True, is_in=True, is_out=True)
            for host in self._deployment.manager.registry.living()
        ]
        return [*ports, *hosts][:POINTS_MAX]

    def _names(self) -> TraceNames:
        registry = self._deployment.manager.registry
        hosts = {_label(host): host for host in registry.living()}
        services = {one.service for host in hosts.values() for one in host.instances}
        return TraceNames(
            ports={self._deployment.port_number(name): name for name in self._deployment.ports},
            services={registry.service_id(name): name for name in services},
            reasons={
                label: [list(one.reasons) for one in host.instances]
                for label, host in hosts.items()
            },
            stages={label: [one.name for one in host.instances] for label, host in hosts.items()},
        )

    def _points(self, request: m.CaptureStartRequest) -> list[CapturePoint]:
        assert request.name is not None
        ways = {"is_in": request.direction != "out", "is_out": request.direction != "in"}
        if request.name in self._deployment.ports:
            return [CapturePoint(request.name, self._deployment.port_number(request.name), **ways)]
        hosts = self._deployment.manager.registry.find(request.name)
        points = {
            host.slot: CapturePoint(host.instances[stage].name, host.slot, is_host=True, **ways)
            for host, stage in hosts
        }
        if not points:
            known = ", ".join(self._deployment.ports)
            raise ConfigError(
                f"expected a port ({known}), an instance or a service",
                field="capture",
                value=request.name,
            )
        return list(points.values())

    def _find(self, number: int) -> Capture:
        if number not in self._running:
            raise ConfigError(
                "expected the number of a running capture", field="capture", value=number
            )
        return self._running[number][0]

    def _show(self, number: int) -> m.CaptureReply:
        capture, path = self._running[number]
        counters = capture.counters
        return m.CaptureReply(
            number=number,
            path=path,
            points=[point.name for point in capture.points],
            captured=counters.captured,
            written=counters.written,
            overflow=counters.overflow,
            is_full=counters.is_full,
            followed=counters.followed,
        )


def _label(host: NfHost) -> str:
    return "+".join(instance.name for instance in host.instances)
