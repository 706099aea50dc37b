"""``onvm cluster status``."""

from __future__ import annotations

from rich.console import Group, RenderableType

from onvm_core.cli.cluster.connection import ClusterOptions
from onvm_core.cli.cluster.scale import request_table
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import Table, number, text
from onvm_core.cluster.status import ClusterStatus, read_status

__all__ = ["cluster_tables", "status"]


@with_option_groups
def status(where: ClusterOptions, output: OutputOptions) -> None:
    """Show hosts, services, chains, requests and problems.

    Examples:
        onvm cluster status
        onvm cluster status -o yaml
    """
    with where.reach() as found:
        shown = read_status(found.ensemble, found.paths)
    output.show(shown, lambda: cluster_tables(shown), lambda: _names(shown))


def _names(shown: ClusterStatus) -> list[str]:
    return [
        *(f"host/{host.name}" for host in shown.hosts),
        *(f"service/{service.name}" for service in shown.services),
        *(f"chain/{name}" for name in shown.chains),
    ]


def cluster_tables(shown: ClusterStatus) -> RenderableType:
    """The status of a cluster as tables for people."""
    views = {host.view for host in shown.hosts if host.state not in ("away", "no_manager")}
    if shown.is_equal:
        is_equal = "all managers know the same"
    else:
        is_equal = "managers are being told" if len(views) > 1 else "managers' tables differ"
    parts: list[RenderableType] = [
        f"cluster {shown.cluster} (VNI {shown.vni}, packets: {shown.data_security}) "
        f"at {shown.ensemble}; {is_equal}",
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
    table = Table(
        "Hosts",
        (
            text("host"),
            text("state", folds=True),
            text("address", 2),
            text("version", 3),
            text("view", 4, folds=True),
            number("number", 4),
            number("cores"),
            number("free"),
            number("others", 3),
            number("instances"),
        ),
    )
    for host in shown.hosts:
        table.add(
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
    table = Table(
        "Services",
        (
            text("service"),
            text("version", 2),
            text("where", folds=True),
            number("active"),
            number("draining", 1),
            number("min"),
            number("max"),
            number("target %", 1),
        ),
    )
    for service in shown.services:
        where = ", ".join(f"{host} {count}" for host, count in service.instances.items())
        table.add(
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
    columns = (text("chain"), text("way", folds=True), number("revision"), number("number", 1))
    table = Table("Chains", columns)
    for name, chain in shown.chains.items():
        way = [
            f"{chain.near.host}:{chain.near.port}",
            *chain.services,
            f"{chain.far.host}:{chain.far.port}",
        ]
        table.add(
            name,
            " → ".join(way),
            f"{chain.revision}{' staged' if chain.is_staged else ''}",
            str(chain.number),
        )
    return table
