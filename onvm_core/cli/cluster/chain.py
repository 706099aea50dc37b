"""``onvm cluster chain``."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from onvm_core.cli.cluster.connection import ClusterOptions, author
from onvm_core.cli.cluster.history import add_history_commands
from onvm_core.cli.options import ChainOptions, JsonOption, with_option_groups
from onvm_core.cli.output import OutputOptions, print_json
from onvm_core.cli.table import number, table_of, text
from onvm_core.cluster.status import read_snapshot, unserved
from onvm_core.cluster.tree.definitions import Chains, check_chain
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import ChainNode
from onvm_core.manager.chains.classifier import MatchConfig
from onvm_core.manager.cluster_view.view import PortView
from onvm_core.manager.config.sections import nearest
from onvm_sdk.errors import ConfigError
from onvm_sdk.settings import explain

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

ChainName = Annotated[str, typer.Argument(metavar="CHAIN", help="Name of the chain.")]


@app.command("list")
@with_option_groups
def list_(
    where: ClusterOptions,
    output: OutputOptions,
) -> None:
    """List the chains.

    Examples:
        onvm cluster chain list
    """
    with where.reach() as found:
        chains = read_snapshot(found.ensemble, found.paths).chains
    rows = [
        {"name": name, "revision": node.revision, "way": _way(node), "number": node.number}
        for name, node in chains.items()
    ]
    columns = {
        "name": text("chain"),
        "revision": number("rev"),
        "number": number("number", 1),
        "way": text("way", folds=True),
    }
    output.show(
        chains, lambda: table_of("", rows, columns), lambda: [f"chain/{name}" for name in chains]
    )


def _way(node: ChainNode) -> str:
    ends = [f"{end.host}:{end.port}" for end in (node.near, node.far)]
    arrow = " ⇄ " if node.bidirectional else " → "
    return arrow.join([ends[0], *node.services, ends[1]])


@app.command()
@with_option_groups
def add(
    where: ClusterOptions,
    chain: ChainName,
    near: Annotated[
        str, typer.Option("--in", metavar="HOST:PORT", help="Port at which packets enter.")
    ],
    far: Annotated[
        str, typer.Option("--out", metavar="HOST:PORT", help="Port at which they leave.")
    ],
    options: ChainOptions,
    match: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE,…",
            help="Flows that take it, as in dst_port=80; may be repeated.",
            show_default="all that no other chain takes",
        ),
    ] = None,
    revision: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Change it only if it is at this revision; 0 for a new chain.",
            show_default="whichever it is at",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a chain, or change one; packets take it when all hosts know it.

    Examples:
        onvm cluster chain add main --in h1:lan --out h2:wan --services firewall,nat
    """
    on_failure = options.on_failure
    rules = None if match is None else [_match(text) for text in match]
    with where.reach() as found:
        chains = Chains(found.ensemble, found.paths)
        known = chains.get(chain)
        last = chains.last(chain) if revision is None else revision
        node = ChainNode(
            number=0 if known is None else known.number,
            revision=last + 1,
            near=_port("--in", near),
            far=_port("--out", far),
            services=options.service_names,
            bidirectional=not options.one_way,
            track_flows=options.track_flows,
            on_failure=on_failure,
            match=rules,
        )
        snapshot = read_snapshot(found.ensemble, found.paths)
        check_chain(snapshot, node)
        if on_failure == "drop":
            _warn_of_unserved(snapshot, node.services)
        if known is None:
            node = msgspec.structs.replace(node, number=chains.new_number())
        chains.put(chain, node, author())
    if as_json:
        print_json(node)
    else:
        print(f"chain {chain}, revision {node.revision}: {_way(node)}")


def _warn_of_unserved(snapshot: Snapshot, services: list[str]) -> None:
    for service in unserved(snapshot, services):
        print(
            f"warning: no instance of {service} serves, so the chain drops its packets; "
            f"start one: onvm cluster scale out {service}",
            file=sys.stderr,
        )


def _port(option: str, text: str) -> PortView:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port):
        raise ConfigError("expected HOST:PORT", field=option, value=text)
    return PortView(host=host, port=port)


def _match(text: str) -> MatchConfig:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    try:
        rule = msgspec.convert(fields, MatchConfig, strict=False)
    except msgspec.ValidationError as error:
        expected, field = explain(error, MatchConfig)
        place = f"--match: {field}" if field else "--match"
        raise ConfigError(expected, field=place, value=fields.get(field, text)) from None
    rule.rule("")
    return rule


@app.command()
@with_option_groups
def remove(
    where: ClusterOptions,
    chain: ChainName,
) -> None:
    """Remove a chain; rollback brings it back.

    Examples:
        onvm cluster chain remove main
    """
    with where.reach() as found:
        if not Chains(found.ensemble, found.paths).remove(chain, author()):
            known = read_snapshot(found.ensemble, found.paths).chains
            raise ConfigError(
                f"expected a chain; {nearest(chain, known)}", field="chain remove", value=chain
            )
    print(f"removed chain {chain}")


@app.command()
@with_option_groups
def show(
    where: ClusterOptions,
    chain: ChainName,
    output: OutputOptions,
) -> None:
    """Show a chain.

    Examples:
        onvm cluster chain show main
    """
    with where.reach() as found:
        node = Chains(found.ensemble, found.paths).get(chain)
        if node is None:
            known = read_snapshot(found.ensemble, found.paths).chains
            raise ConfigError(
                f"expected a chain; {nearest(chain, known)}", field="chain show", value=chain
            )
    line = f"chain {chain}, revision {node.revision}, number {node.number}: {_way(node)}"
    output.show(node, lambda: line, lambda: [f"chain/{chain}"])


add_history_commands(app, "chain", lambda found: Chains(found.ensemble, found.paths), _way)
