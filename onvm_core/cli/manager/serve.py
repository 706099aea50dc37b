"""The process that ``onvm up`` becomes: a manager.

Nothing here needs the command line's libraries, which take a third of a manager's start.
"""

from __future__ import annotations

import sys
from pathlib import Path

from onvm_core.cli.installed import plugins_of_process
from onvm_core.cli.logs import begin_logging
from onvm_core.cli.signals import call_on_hangup, stop_on_signals
from onvm_core.manager.api.directory import manager_directory
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.checked import check as check_with
from onvm_core.manager.config.plan import make_plan
from onvm_core.manager.placement.topology import read_topology
from onvm_core.manager.service.service import Service
from onvm_core.manager.startup import times
from onvm_core.manager.startup.environment import split_cpus

__all__ = ["announce", "check", "notes", "serve"]


def check(file: Path) -> Checked:
    """Check a file with the plugins of this process; see `checked.check`."""
    return check_with(file, plugins_of_process())


def notes(made: Checked) -> list[str]:
    """Limits that this host puts on a file without mistakes, one line each."""
    plane = made.config.dataplane
    if not plane.is_busy:
        return []
    uris = {name: port.uri for name, port in made.config.ports.items()}
    workers, _ = split_cpus(plane.workers, plane.cpus, uris.values())
    topology = read_topology(uris)
    plan = make_plan(
        made.config, made.packages, made.extensions.placement, topology, workers, made.path.parent
    )
    return plan.warnings


def serve(file: Path, name: str, log_format: str = "") -> None:
    """Run the manager of that name until it is asked to end; then print its last counters.

    Args:
        log_format: as for `begin_logging`.

    Raises:
        OnvmError: the file has a mistake, or something does not start.
    """
    times.lap("modules")
    made = check(file)
    directory = manager_directory(name)
    times.lap("checks")
    begin_logging(log_format)
    with (
        stop_on_signals() as received,
        Service(directory, made, read=check) as service,
        call_on_hangup(service.reload_soon),
    ):
        service.start()
        report = service.run(lambda: bool(received), lambda: announce(name))
    from onvm_core.cli.manager.report import print_report  # tables, when there is time for them

    print_report(report)


def announce(name: str) -> None:
    """Report that the manager of that name is ready."""
    option = "" if name == "main" else f" --name {name}"
    print(f"manager {name!r} is ready; see: onvm status{option}; end: onvm down{option}")
    sys.stdout.flush()
