"""``onvm cluster status``."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from onvm_core.cli.cluster.connection import ClusterOptions
from onvm_core.cli.cluster.scale import request_table
from onvm_core.cli.options import JsonOption, with_option_groups
from onvm_core.cli.output import make_console, make_table, print_json
from onvm_core.cluster.status import ClusterStatus, read_status

__all__ = ["cluster_tables", "status"]


@with_option_groups
def status(where: ClusterOptions, as_json: JsonOption = False) -> None:
    """Show hosts, services, chains, requests and problems."""
    with where.reach() as found:
        shown = read_status(found.ensemble, found.paths)
    if as_json:
        print_json(shown)
    else:
        make_console().print(cluster_tables(shown))


def cluster_tables(shown: ClusterStatus) -> RenderableType:
    """The status of a cluster as tables for people."""
    views = {host.view for host in shown.hosts if host.state not in ("away", "no_manager")}
    if shown.is_equal:
        is_equal = "all managers know the same"
    else:
        is_equal = "managers are being told" if len(views) > 1 else "managers' tables differ"
    parts: list[RenderableType] = [
        f"cluster {shown.cluster} (VNI {shown.vni}) at {shown.ensemble}; {is_equal}",
        "",
        _hosts(shown),
        "",
        _services(shown),
        "",
        _chains(shown),
    ]
    waiting = [request for request in shown.requests if request.state == "waiting"]
    if waiting:
        parts += ["", request_table(waiting)]
    lines = [
        *(f"{host.name}: {line}" for host in shown.hosts for line in host.missing),
        *(
            f"{host.name}: its agent does not hear that of {other}, whose load counts as last seen"
            for host in shown.hosts
            for other in host.unheard
        ),
        *(
            f"{host.name}: its clock is {abs(host.clock_skew_s)} s "
            f"{'ahead of' if host.clock_skew_s > 0 else 'behind'} ZooKeeper's"
            for host in shown.hosts
            if host.clock_skew_s
        ),
        *shown.problems,
        *shown.mismatches,
        *(f"{path}: damaged: {why}" for path, why in shown.damaged.items()),
    ]
    if lines:
        parts += ["", *lines]
    return Group(*parts)


def _hosts(shown: ClusterStatus) -> Table:
    table = make_table(
        "Hosts",
        ("host", "state", "address", "version", "view"),
        ("number", "cores", "free", "others", "instances"),
    )
    for host in shown.hosts:
        table.add_row(
            host.name + (" (leader)" if host.is_leader else ""),
            host.state,
            host.address or "-",
            host.version or "-",
            host.view or "-",
            str(host.number),
            f"{host.cores:g}",
            f"{host.free_cores:g}",
            f"{host.others_cores:g}",
            str(host.instances),
        )
    return table


def _services(shown: ClusterStatus) -> Table:
    table = make_table(
        "Services",
        ("service", "version", "where"),
        ("active", "draining", "min", "max", "target %"),
    )
    for service in shown.services:
        where = ", ".join(f"{host} {count}" for host, count in service.instances.items())
        table.add_row(
            service.name,
            service.plugin_version or "-",
            where or "-",
            str(sum(service.instances.values())),
            str(service.draining),
            *("-" if one is None else str(one) for one in (service.min, service.max)),
            "-" if service.target is None else f"{service.target * 100:.0f}",
        )
    return table


def _chains(shown: ClusterStatus) -> Table:
    table = make_table("Chains", ("chain", "way"), ("revision", "number"))
    for name, chain in shown.chains.items():
        way = [
            f"{chain.near.host}:{chain.near.port}",
            *chain.services,
            f"{chain.far.host}:{chain.far.port}",
        ]
        table.add_row(name, " → ".join(way), str(chain.revision), str(chain.number))
    return table
