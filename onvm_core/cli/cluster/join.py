"""``onvm cluster join``: run the agent of this host."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli.cluster.connection import AccessOptions, ManagerOption, open_ensemble
from onvm_core.cli.detached import last_line, start_detached, wait_for_line
from onvm_core.cli.logs import begin_logging
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cluster.agent import Agent
from onvm_core.cluster.errors import LostClusterError, NoEnsembleError, RemovedError
from onvm_core.cluster.member.cpu_use import CpuUse
from onvm_core.cluster.member.state_directory import StateDirectory, read_state, state_directory
from onvm_core.cluster.metrics import AgentMetrics
from onvm_core.manager.api.directory import manager_directory
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["join"]

JOIN_TIMEOUT_S = 60.0
READY_VARIABLE = "ONVM_AGENT_READY_FD"
"""Descriptor on which a detached agent reports that it has joined."""


@with_option_groups
def join(
    access: AccessOptions,
    ensemble: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST:PORT,…",
            envvar="ONVM_ENSEMBLE",
            help="ZooKeeper servers.",
            show_default="as joined before",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="ONVM_HOST",
            help="Name of this host in the cluster.",
            show_default="as joined before, else the host name",
        ),
    ] = None,
    data_address: Annotated[
        str | None,
        typer.Option(
            metavar="IP",
            envvar="ONVM_DATA_ADDRESS",
            help="Address of this host to which other hosts send packets.",
            show_default="as joined before",
        ),
    ] = None,
    control_address: Annotated[
        str | None,
        typer.Option(
            metavar="IP",
            help="Address of this host to which other agents connect.",
            show_default="the data address",
        ),
    ] = None,
    control_port: Annotated[
        int,
        typer.Option(min=0, max=65535, metavar="N", help="TCP port for other agents; 0 for any."),
    ] = 0,
    manager: ManagerOption = "main",
    session_timeout: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=120,
            metavar="S",
            help="Seconds of silence after which this host counts as gone.",
            show_default="as joined before, else 6",
        ),
    ] = None,
    no_measure_cpu: Annotated[
        bool,
        typer.Option(
            "--no-measure-cpu",
            help="Place NFs without regard to the CPU use of other programs.",
        ),
    ] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File for the agent's metrics, in Prometheus' text format.",
            show_default="none",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the host has joined.")
    ] = False,
) -> None:
    """Make this host part of a cluster: run its manager's agent.

    It stays in the foreground until Ctrl-C or SIGTERM. Ending it does not end the membership, and
    packets go on; the next `onvm cluster join`, without arguments, takes over. See also leave.

    Examples:
        onvm cluster join zk1:2181,zk2:2181 --credentials credentials
    """
    connection = access.connection(manager, ensemble, session_timeout)
    folder = state_directory(manager)
    known = read_state(folder)
    name = name or (known.name if known is not None else "") or socket.gethostname()
    address = data_address or (known.address if known is not None else "")
    _check_address("--data-address", address)
    if control_address is not None:
        _check_address("--control-address", control_address)
    if detach:
        _detach(folder)
        return
    begin_logging()
    with StateDirectory(folder) as state, stop_on_signals() as received:
        try:
            agent = Agent(
                open_ensemble(connection)[0],
                state,
                connection.cluster,
                name,
                address,
                manager_directory(manager),
                control=control_address or address,
                control_port=control_port,
                use=None if no_measure_cpu else CpuUse(),
            )
        except (NoEnsembleError, LostClusterError) as error:  # status 1: try again
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        state.state.connection, state.state.address = connection, address
        state.save()
        is_leaving = False
        files = ExitStack()
        try:
            shown = None if metrics is None else files.enter_context(AgentMetrics(metrics, agent))

            def should_stop() -> bool:
                if shown is not None:
                    shown.turn()
                return bool(received)

            agent.run(
                should_stop,
                lambda: _say_ready(
                    f"{name} has joined cluster {connection.cluster}; see: onvm cluster status"
                ),
            )
        except RemovedError:
            is_leaving = True
            agent.forget_manager()
            state.forget()
            print(f"{name} has left cluster {connection.cluster}")
        finally:
            files.close()
            agent.close(is_leaving)


def _check_address(option: str, text: str) -> None:
    """Check that an address belongs to this host.

    Raises:
        ConfigError: it does not.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(text).version == 6 else socket.AF_INET
    except ValueError:
        raise ConfigError("expected an IP address", field=option, value=text or None) from None
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((text, 0))
        except OSError as error:
            raise ConfigError(
                f"expected an address of this host ({error.strerror})", field=option, value=text
            ) from None


def _say_ready(line: str) -> None:
    """Tell the terminal, and the command that waits for a detached agent."""
    print(line, flush=True)
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is not None:
        with open(int(descriptor), "w", encoding="utf-8") as ready:
            ready.write(f"{line}\n")


def _detach(folder: Path) -> None:
    """Start the agent in a new session, and wait until it has joined."""
    with StateDirectory(folder):  # if another agent has it, its log must not be touched
        log = folder / "agent.log"
    arguments = [one for one in sys.argv[1:] if one not in ("--detach", "-d")]
    ours, theirs = os.pipe()
    with open(ours, "rb", buffering=0) as ready:
        try:
            start_detached(arguments, log, {READY_VARIABLE: str(theirs)}, (theirs,))
        finally:
            os.close(theirs)
        try:
            line = wait_for_line(ready, JOIN_TIMEOUT_S)
        except TimeoutError:
            raise OnvmError(f"not joined within {JOIN_TIMEOUT_S:g} s; see {log}") from None
    if not line:  # the agent has ended
        raise OnvmError(last_line(log))
    print(line)
