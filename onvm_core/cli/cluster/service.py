"""``onvm cluster service``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from onvm_core.cli.cluster.connection import (
    ClusterOption,
    CredentialsOption,
    EnsembleOption,
    ManagerOption,
    TlsOption,
    author,
    reach,
)
from onvm_core.cli.cluster.history import print_history
from onvm_core.cli.manager.connect import JsonOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.cluster.status import read_snapshot
from onvm_core.cluster.tree.definitions import Services
from onvm_core.cluster.tree.nodes import ServiceNode
from onvm_core.manager.sections import nearest
from onvm_core.plugins import load_plugins
from onvm_sdk.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE")]
Seconds = Annotated[float | None, typer.Option(min=0, max=86400, metavar="S")]


@app.command("list")
def list_(
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the services that scale over the cluster."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        services = read_snapshot(found.ensemble, found.paths).services
    if as_json:
        print_json(services)
        return
    rows = [{"name": name, **msgspec.structs.asdict(node)} for name, node in services.items()]
    print_table(
        rows,
        {
            "name": "Service",
            "revision": "Rev",
            "min": "Min",
            "max": "Max",
            "target": "Target",
            "policy": "Policy",
            "placement": "Placement",
            "cooldown_s": "Cool-down s",
            "request_s": "Request s",
        },
    )


@app.command("set")
def set_(
    service: ServiceName,
    min_: Annotated[int | None, typer.Option("--min", min=0, max=4096)] = None,
    max_: Annotated[int | None, typer.Option("--max", min=1, max=4096)] = None,
    target: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Utilisation to keep to.")
    ] = None,
    hysteresis: Annotated[float | None, typer.Option(min=0.05, max=0.95)] = None,
    out_after_s: Seconds = None,
    in_after_s: Annotated[float | None, typer.Option(min=0.1, max=86400, metavar="S")] = None,
    cooldown_s: Seconds = None,
    request_s: Annotated[
        float | None,
        typer.Option(min=0.1, max=86400, metavar="S", help="A request expires after so long."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="When: a scaling policy.")
    ] = None,
    placement: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where: a host policy.")
    ] = None,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a service scale over the cluster, or change how; what is not named stays."""
    plugins = load_plugins()
    for option, hook, name in (
        ("--policy", "onvm_scaling_policies", policy),
        ("--placement", "onvm_host_policies", placement),
    ):
        offers = plugins.offers(hook)
        if name is not None and name not in offers:
            raise ConfigError(nearest(name, offers), field=option, value=name)
    given: dict[str, Any] = {
        "min": min_,
        "max": max_,
        "target": target,
        "hysteresis": hysteresis,
        "out_after_s": out_after_s,
        "in_after_s": in_after_s,
        "cooldown_s": cooldown_s,
        "request_s": request_s,
        "policy": policy,
        "placement": placement,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        services = Services(found.ensemble, found.paths)
        before = services.get(service) or ServiceNode(revision=1)
        changes["revision"] = services.last(service) + 1
        node = msgspec.structs.replace(before, **changes)
        if node.min > node.max:
            raise ConfigError(f"expected at most --max ({node.max})", field="--min", value=node.min)
        snapshot = read_snapshot(found.ensemble, found.paths)
        known = {one.service for host in snapshot.hosts.values() for one in host.plugins}
        if service not in known:
            raise ConfigError(
                f"expected a service that some host has an NF for; {nearest(service, known)}",
                field="service",
                value=service,
            )
        services.put(service, node, author())
    if as_json:
        print_json(node)
    else:
        print(
            f"service {service}, revision {node.revision}: {node.min} to {node.max} instances, "
            f"utilisation {node.target:.0%}"
        )


@app.command()
def remove(
    service: ServiceName,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
) -> None:
    """Let a service stay as it is."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        if not Services(found.ensemble, found.paths).remove(service, author()):
            known = read_snapshot(found.ensemble, found.paths).services
            raise ConfigError(
                f"expected a service that scales; {nearest(service, known)}",
                field="service remove",
                value=service,
            )
    print(f"service {service} stays as it is")


@app.command()
def history(
    service: ServiceName,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who has changed how a service scales."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        print_history(Services(found.ensemble, found.paths).history(service), as_json)


@app.command()
def rollback(
    service: ServiceName,
    revision: Annotated[int, typer.Argument(min=1, help="See history.")],
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
) -> None:
    """Let a service scale as it did at a revision."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        node = Services(found.ensemble, found.paths).rollback(service, revision, author())
    print(f"service {service}, revision {node.revision}")
