"""``onvm cluster service``."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from onvm_core.cli.cluster.connection import ClusterOptions, author
from onvm_core.cli.cluster.history import add_history_commands
from onvm_core.cli.cluster.scale_options import ScaleOptions
from onvm_core.cli.options import JsonOption, with_option_groups
from onvm_core.cli.output import OutputOptions, print_json
from onvm_core.cli.table import number, table_of, text
from onvm_core.cluster.status import read_snapshot
from onvm_core.cluster.tree.definitions import Services
from onvm_core.cluster.tree.nodes import ServiceNode
from onvm_core.manager.config.sections import nearest
from onvm_core.plugins import load_plugins
from onvm_sdk.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="Name of the service.")]


@app.command("list")
@with_option_groups
def list_(
    where: ClusterOptions,
    output: OutputOptions,
) -> None:
    """List the services that scale over the cluster.

    Examples:
        onvm cluster service list
    """
    with where.reach() as found:
        services = read_snapshot(found.ensemble, found.paths).services
    rows = [{"name": name, **msgspec.structs.asdict(node)} for name, node in services.items()]
    columns = {
        "name": text("service"),
        "revision": number("rev", 2),
        "min": number("min"),
        "max": number("max"),
        "target": number("target"),
        "policy": text("policy"),
        "placement": text("placement"),
        "cooldown_s": number("cool-down s", 1),
        "request_s": number("request s", 2),
    }
    output.show(
        services,
        lambda: table_of("", rows, columns),
        lambda: [f"service/{name}" for name in services],
    )


@app.command("set")
@with_option_groups
def set_(
    where: ClusterOptions,
    service: ServiceName,
    options: ScaleOptions,
    as_json: JsonOption = False,
) -> None:
    """Let a service scale over the cluster, or change its scaling.

    Examples:
        onvm cluster service set firewall --min 1 --max 8
    """
    plugins = load_plugins()
    for option, hook, name in (
        ("--policy", "onvm_scaling_policies", options.policy),
        ("--placement", "onvm_host_policies", options.placement),
    ):
        offers = plugins.offers(hook)
        if name is not None and name not in offers:
            raise ConfigError(nearest(name, offers), field=option, value=name)
    with where.reach() as found:
        services = Services(found.ensemble, found.paths)
        before = services.get(service) or ServiceNode(revision=1)
        node = msgspec.structs.replace(
            before, revision=services.last(service) + 1, **options.changes
        )
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
        print(f"service {service}, revision {node.revision}: {_scaling(node)}")


@app.command()
@with_option_groups
def remove(
    where: ClusterOptions,
    service: ServiceName,
) -> None:
    """End the scaling of a service; its instances stay.

    Examples:
        onvm cluster service remove firewall
    """
    with where.reach() as found:
        if not Services(found.ensemble, found.paths).remove(service, author()):
            known = read_snapshot(found.ensemble, found.paths).services
            raise ConfigError(
                f"expected a service that scales; {nearest(service, known)}",
                field="service remove",
                value=service,
            )
    print(f"service {service} scales no more; its instances stay")


def _scaling(node: ServiceNode) -> str:
    return f"{node.min} to {node.max} instances, utilisation {node.target:.0%}"


add_history_commands(app, "service", lambda found: Services(found.ensemble, found.paths), _scaling)
