"""``onvm plan``."""

from __future__ import annotations

import msgspec
import typer
from rich.console import Group, RenderableType

from onvm_core.cli.installed import plugins_of_process
from onvm_core.cli.options import DEFAULT_FILE, FileOption, with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import number, table_of, text
from onvm_core.launch.launcher import HOOK as LAUNCHERS
from onvm_core.manager.config.onvm_toml import load_config
from onvm_core.manager.config.plan import Plan, make_plan
from onvm_core.manager.placement.allocator import load_policy, policy_names
from onvm_core.manager.placement.topology import read_topology
from onvm_core.manager.ports import port_kinds
from onvm_core.manager.startup.environment import split_cpus
from onvm_core.plugins import discover

__all__ = ["plan"]


@with_option_groups
def plan(
    file: FileOption = DEFAULT_FILE,
    *,
    output: OutputOptions,
) -> None:
    """Show on which CPUs the NFs of a file would run, and why.

    Nothing is started. Exit status 1: resources are missing for some of them.

    Examples:
        onvm plan -f onvm.toml
    """
    packages = discover()
    plugins = plugins_of_process()
    offers = plugins.offers(LAUNCHERS)
    config = load_config(file, port_kinds(plugins), packages, offers, policy_names(plugins))
    uris = {name: port.uri for name, port in config.ports.items()}
    workers, _ = split_cpus(config.dataplane.workers, config.dataplane.cpus, uris.values())
    launchers = config.make_launchers(offers)
    for group in config.groups():
        launchers.get(group.launcher, file=file, field=f"{group.field}.launcher")
    made = make_plan(
        config,
        packages,
        load_policy(config.manager.placement, plugins),
        read_topology(uris),
        workers,
        file.parent,
    )
    made = msgspec.structs.replace(made, warnings=[*launchers.warnings, *made.warnings])
    output.show(
        made,
        lambda: _shown(made),
        lambda: [f"instance/{name}" for nf in made.nfs for name in nf.instances],
    )
    if not made.is_complete:
        raise typer.Exit(1)


def _shown(made: Plan) -> RenderableType:
    topology = made.topology
    cores = len({cpu.core for cpu in topology.cpus})
    quota = "" if topology.cpu_quota is None else f", time of {topology.cpu_quota:g}"
    machine = (
        f"{_count(len(topology.cpus), 'CPU')} on {_count(cores, 'core')} and "
        f"{_count(len(topology.nodes), 'NUMA node')}{quota}, {topology.available_mib} MiB; "
        f"workers on CPU {_numbers(made.workers)}; placement {made.policy!r}"
    )
    memory = "; ".join(
        f"{one.buffers:,} buffers ({one.memory_mib} MiB) on NUMA node {one.node}"
        for one in made.packet_memory
    )
    rows = [
        {
            "instance": "+".join(nf.instances),
            "launcher": nf.launcher,
            "cpus": _numbers(nf.cpus) or "-",
            "kind": ("dedicated" if nf.is_dedicated else "shared") if nf.is_placed else "refused",
            "node": "-" if nf.node is None else nf.node,
            "cores": f"{nf.cores:g}",
            "memory": nf.memory_mib,
            "reason": nf.reason,
        }
        for nf in made.nfs
    ]
    columns = {
        "instance": text("instance"),
        "launcher": text("launcher", 2),
        "cpus": text("cpu"),
        "kind": text("core"),
        "node": number("node", 3),
        "cores": number("needs cores", 1),
        "memory": number("MiB", 1),
        "reason": text("reason", folds=True),
    }
    notes = [f"\nnote: {warning}" for warning in made.warnings]
    return Group(machine, f"packet memory: {memory}", "", table_of("", rows, columns), *notes)


def _numbers(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
