"""``onvm cluster``: many hosts as one."""

from __future__ import annotations

import ipaddress
import logging
import posixpath
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from onvm_core.cli.cluster.chain import app as chain_app
from onvm_core.cli.cluster.connection import (
    ClusterOption,
    CredentialsOption,
    EnsembleOption,
    ManagerOption,
    TlsOption,
    connected,
    make_connection,
    open_ensemble,
    reach,
)
from onvm_core.cli.cluster.keys import app as keys_app
from onvm_core.cli.cluster.scale import app as scale_app
from onvm_core.cli.cluster.scale import request_table
from onvm_core.cli.cluster.service import app as service_app
from onvm_core.cli.manager.connect import JsonOption
from onvm_core.cli.manager.report import make_table
from onvm_core.cli.output import make_console, print_json
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cluster.agent import Agent
from onvm_core.cluster.credentials import read_credentials
from onvm_core.cluster.errors import NoEnsembleError, RemovedError
from onvm_core.cluster.handover.leaving import move_away, set_draining
from onvm_core.cluster.member.membership import remove_host, say_goodbye
from onvm_core.cluster.member.state_directory import StateDirectory, read_state, state_directory
from onvm_core.cluster.status import ClusterStatus, read_status
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.manager.directory import manager_directory
from onvm_core.manager.sections import nearest
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["app"]

JOIN_TIMEOUT_S = 60.0
POLL_S = 0.05
GOODBYE_S = 0.5
JOINED = "joined cluster "

app = typer.Typer(no_args_is_help=True)
app.add_typer(chain_app, name="chain", help="Chains over all hosts, with history.")
app.add_typer(service_app, name="service", help="How services scale over all hosts.")
app.add_typer(scale_app, name="scale", help="Requests for instances.")
app.add_typer(keys_app, name="keys", help="Credentials and keys.")

EnsembleArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="HOST:PORT,…",
        envvar="ONVM_ENSEMBLE",
        help="ZooKeeper servers; left out: as joined before.",
    ),
]


@app.command()
def init(
    ensemble: Annotated[str, typer.Argument(metavar="HOST:PORT,…", help="ZooKeeper servers.")],
    cluster: ClusterOption = None,
    vni: Annotated[
        int | None,
        typer.Option(min=0, max=(1 << 24) - 1, help="VXLAN network identifier; else by chance."),
    ] = None,
    credentials: CredentialsOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without credentials: everybody may do everything.")
    ] = False,
    tls: TlsOption = None,
) -> None:
    """Make a cluster in an ensemble, for hosts to join."""
    connection = make_connection("", ensemble, cluster, credentials, tls)
    if read_credentials(credentials) is None and not insecure:
        raise ConfigError(
            "expected a file with credentials; make one: onvm cluster keys new FOLDER "
            "(or --insecure, for trying out)",
            field="--credentials",
        )
    with connected(connection) as found:
        node = make_cluster(found.ensemble, connection.cluster, vni)
    print(f"made cluster {node.name} (VNI {node.vni})")


@app.command()
def join(
    ensemble: EnsembleArgument = None,
    name: Annotated[
        str | None, typer.Option(envvar="ONVM_HOST", help="Of this host; else its host name.")
    ] = None,
    data_address: Annotated[
        str | None,
        typer.Option(
            metavar="IP",
            envvar="ONVM_DATA_ADDRESS",
            help="Of this host, where packets of other hosts come to.",
        ),
    ] = None,
    control_address: Annotated[
        str | None,
        typer.Option(metavar="IP", help="Where other agents come to; else the data address."),
    ] = None,
    control_port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port for other agents; 0: any.")
    ] = 0,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    session_timeout: Annotated[
        float | None,
        typer.Option(min=1, max=120, metavar="S", help="A host that is silent so long is gone."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the host has joined.")
    ] = False,
) -> None:
    """Make this host part of a cluster: run the agent of its manager.

    It stays in the foreground until Ctrl-C or SIGTERM. Ending it does not end the membership, and
    packets go on; the next `onvm cluster join`, without arguments, takes over. See also leave.
    """
    connection = make_connection(manager, ensemble, cluster, credentials, tls, session_timeout)
    folder = state_directory(manager)
    known = read_state(folder)
    name = name or (known.name if known is not None else "") or socket.gethostname()
    address = data_address or (known.address if known is not None else "")
    _check_address("--data-address", address)
    if control_address is not None:
        _check_address("--control-address", control_address)
    if detach:
        _detach(folder, manager)
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
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
            )
        except NoEnsembleError as error:  # whoever starts us may try again
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        state.state.connection, state.state.address = connection, address
        state.save()

        def ready() -> None:
            print(f"{name} has {JOINED}{connection.cluster}; see: onvm cluster status", flush=True)

        is_leaving = False
        try:
            agent.run(lambda: bool(received), ready)
        except RemovedError:
            is_leaving = True
            agent.forget_manager()
            state.forget()
            print(f"{name} has left cluster {connection.cluster}")
        finally:
            agent.close(is_leaving)


def _check_address(option: str, text: str) -> None:
    """See that an address is one of this host.

    Raises:
        ConfigError: it is not.
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


def _detach(folder: Path, manager: str) -> None:
    """Start the agent in a session of its own, and wait until it has joined."""
    with StateDirectory(folder):  # if another has it, its log is not to be touched
        log = folder / "agent.log"
    arguments = [one for one in sys.argv[1:] if one not in ("--detach", "-d")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "onvm_core.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while True:
        said = log.read_text(errors="replace").strip().splitlines()
        joined = [line for line in said if JOINED in line]
        if joined:
            print(joined[-1])
            return
        if process.poll() is not None:
            lines = said or ["it said nothing"]
            raise OnvmError(lines[-1].removeprefix("error: "))
        if time.monotonic() > deadline:
            raise OnvmError(f"not joined within {JOIN_TIMEOUT_S:g} s; see {log}")
        time.sleep(POLL_S)


@app.command()
def leave(
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another host, that is gone for good.")
    ] = None,
    drain_s: Annotated[
        float,
        typer.Option(
            min=0, max=3600, metavar="S", help="Its NFs may take so long to move to other hosts."
        ),
    ] = 10.0,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
) -> None:
    """Take this host, or another, out of the cluster.

    NFs that have others of their kind elsewhere hand their state over first, and end. Then its
    agent ends; the other NFs stay.
    """
    folder = state_directory(manager)
    if host is None:
        known = read_state(folder)
        if known is None or not known.name:
            raise ConfigError("this host has joined no cluster", field="leave")
        host = known.name
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        if drain_s > 0 and not move_away(found.ensemble, found.paths, host, drain_s):
            print(f"not all of {host}'s NFs have moved within {drain_s:g} s", file=sys.stderr)
        if say_goodbye(found.ensemble, found.paths, host):
            time.sleep(GOODBYE_S)  # so that all see it before the host is gone
        if not remove_host(found.ensemble, found.paths, host):
            names = found.ensemble.client.get_children(found.paths.names)
            raise ConfigError(
                f"expected a host of the cluster; {nearest(host, names)}",
                field="--host",
                value=host,
            )
    print(f"{host} has left the cluster")


@app.command()
def drain(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the cluster.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it get new flows again.")] = False,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
) -> None:
    """Let a host's instances get no new flows and no new instances come there.

    Instances that can hand their state over move to others of their kind, and end; where there are
    none elsewhere, one is asked for. Of the rest, running flows stay until they end; onvm cluster
    status shows the state.
    """
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        with found.ensemble.call(f"drain {host}") as client:
            names = client.get_children(found.paths.names)
            if host not in names:
                raise ConfigError(
                    f"expected a host of the cluster; {nearest(host, names)}",
                    field="drain",
                    value=host,
                )
            path = posixpath.join(found.paths.draining, host)
            if undo and client.exists(path) is not None:
                client.delete(path)
        if not undo:
            set_draining(found.ensemble, found.paths, host)
    print(f"{host} {'gets new flows again' if undo else 'drains'}")


@app.command()
def status(
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show hosts, services, chains and requests of the cluster, and what is not as it should be."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        shown = read_status(found.ensemble, found.paths)
    if as_json:
        print_json(shown)
    else:
        make_console().print(_tables(shown))


@app.command()
def dev(
    hosts: Annotated[int, typer.Option(min=2, max=16, help="How many.")] = 3,
    services: Annotated[
        str, typer.Option(metavar="SERVICE,SERVICE…", help="Of the chain across them.")
    ] = "firewall",
    servers: Annotated[int, typer.Option(min=1, max=5, help="Of ZooKeeper.")] = 1,
    once: Annotated[
        bool, typer.Option("--once", help="Start, show that packets pass, and end.")
    ] = False,
) -> None:
    """Try a cluster out on this machine: ZooKeeper, hosts as network namespaces, a chain.

    Needs root and ZooKeeper's package. It stays until Ctrl-C; then everything is gone.
    """
    from onvm_core.cluster.dev.dev_cluster import DevCluster

    names = [one.strip() for one in services.split(",") if one.strip()]
    with stop_on_signals() as received, DevCluster(hosts, names, servers, _say) as made:
        answered, mean_ms = made.probe()
        _say(
            f"20 datagrams from client to server: {answered} answered, {mean_ms:.1f} ms on average"
        )
        make_console().print(_tables(made.status()))
        if answered == 0:
            raise OnvmError("no datagram came back")
        if once:
            return
        folder = made.folder
        print(
            f"\nIn another terminal, for example:\n"
            f"  {folder}/onvm cluster status\n"
            f"  {folder}/onvm cluster scale out {names[0] if names else 'firewall'}\n"
            f"  {folder}/in client ping 10.9.0.2\n"
            f"  {folder}/in h1 onvm status --name h1\n"
            "Ctrl-C ends it.",
            flush=True,
        )
        while not received:
            time.sleep(POLL_S)


def _say(line: str) -> None:
    print(line, flush=True)


def _tables(shown: ClusterStatus) -> RenderableType:
    is_equal = "all managers know the same" if shown.is_equal else "managers are being told"
    parts: list[RenderableType] = [
        f"cluster {shown.cluster} (VNI {shown.vni}) at {shown.ensemble}; {is_equal}",
        "",
    ]
    hosts = make_table(
        "Hosts",
        ("host", "state", "address", "version", "view"),
        ("number", "cores", "free", "instances"),
    )
    for host in shown.hosts:
        hosts.add_row(
            host.name + (" (leads)" if host.is_leader else ""),
            host.state,
            host.address or "-",
            host.version or "-",
            host.view or "-",
            str(host.number),
            f"{host.cores:g}",
            f"{host.free_cores:g}",
            str(host.instances),
        )
    services = make_table(
        "Services",
        ("service", "version", "where"),
        ("active", "draining", "min", "max", "target %"),
    )
    for service in shown.services:
        where = ", ".join(f"{host} {count}" for host, count in service.instances.items())
        services.add_row(
            service.name,
            service.edition or "-",
            where or "-",
            str(sum(service.instances.values())),
            str(service.draining),
            *("-" if one is None else str(one) for one in (service.min, service.max)),
            "-" if service.target is None else f"{service.target * 100:.0f}",
        )
    chains = make_table("Chains", ("chain", "way"), ("revision", "number"))
    for name, chain in shown.chains.items():
        way = [
            f"{chain.near.host}:{chain.near.port}",
            *chain.services,
            f"{chain.far.host}:{chain.far.port}",
        ]
        chains.add_row(name, " → ".join(way), str(chain.revision), str(chain.number))
    parts += [hosts, "", services, "", chains]
    waiting = [request for request in shown.requests if request.state == "waiting"]
    if waiting:
        parts += ["", request_table(waiting)]
    lines = [
        *(f"{host.name}: {line}" for host in shown.hosts for line in host.missing),
        *shown.mismatches,
        *(f"{path}: damaged: {why}" for path, why in shown.damaged.items()),
    ]
    if lines:
        parts += ["", *lines]
    return Group(*parts)
