"""The data plane of ``onvm up`` begins while Python still reads the rest of the manager.

DPDK's environment takes about 130 ms, of which it sleeps 100 ms to measure the TSC; packet memory
and tables take some more. Imports and the checks of the file take as long, and need none of this.
So `begin` starts the data plane in a thread as soon as the arguments of the command are known, from
only the file's ``[dataplane]``. Nothing depends on the early start: without an early start, or with
a mistake in the file, `start_plane` starts the data plane later, and the check of the file reports
the mistake.

Threads: `begin` and `start_plane` belong to the thread that runs the manager.
"""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from onvm_core.dataplane.interface import DataPlane
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.manager.startup import times
from onvm_core.manager.startup.environment import (
    DataplaneConfig,
    check_dataplane,
    eal_arguments,
    split_cpus,
)
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["begin", "start_plane"]

_PCI = "pci:"
"""Ports of NICs: DPDK takes them over when it starts, so all must be checked before."""


class _Start(threading.Thread):
    """Starts the data plane. Not a daemon thread: Python must not end while DPDK is starting."""

    def __init__(self, settings: DataplaneSettings, arguments: Sequence[str]) -> None:
        super().__init__(name="onvm-early-start")
        self.settings = settings
        self.arguments = arguments
        self.error: Exception | None = None

    def run(self) -> None:
        """Start the data plane, and keep the error for `start_plane`."""
        try:
            _start(self.settings, self.arguments)
        except (ImportError, OnvmError) as error:
            self.error = error


_running: list[_Start] = []


def begin(file: Path) -> None:
    """Start the data plane that `file` describes, if that part of it is correct."""
    planned = _plan(file)
    if planned is not None and not _running:
        _running.append(_Start(*planned))
        _running[0].start()


def _plan(file: Path) -> tuple[DataplaneSettings, list[str]] | None:
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
        plane = msgspec.convert(tree.get("dataplane", {}), DataplaneConfig)
        uris = [port["uri"] for port in tree.get("ports", {}).values()]
        check_dataplane(plane, file)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None  # the check of the file reports the mistake
    except (ConfigError, msgspec.ValidationError):
        return None
    if any(not isinstance(uri, str) or uri.startswith(_PCI) for uri in uris):
        return None
    workers, _ = split_cpus(plane.workers, plane.cpus, uris)
    return plane.settings(uris), eal_arguments(workers)


def start_plane(settings: DataplaneSettings, arguments: Sequence[str]) -> DataPlane:
    """Make the native data plane, or wait for the one that is starting.

    Raises:
        OnvmError: it does not start.
    """
    begun = _running.pop() if _running else None
    if begun is None:
        _start(settings, arguments)
    from onvm_core._native.plane import NativeDataPlane  # while DPDK starts, if it has begun

    if begun is not None:
        begun.join()
        if begun.error is not None:
            raise begun.error
        if (begun.settings, list(begun.arguments)) != (settings, list(arguments)):
            raise OnvmError("[dataplane] has changed while the manager started; start it again")
    return NativeDataPlane()


def _start(settings: DataplaneSettings, arguments: Sequence[str]) -> None:
    from onvm_core._native.lifecycle import NativeLifecycle  # loads DPDK, and nothing else

    lifecycle = NativeLifecycle()
    began = time.monotonic()
    lifecycle.start_environment(arguments)
    there = time.monotonic()
    lifecycle.init(settings)
    times.note("environment", there - began)
    times.note("tables", time.monotonic() - there)
