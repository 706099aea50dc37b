"""``onvm chain``: chains of a running manager."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.status import chain_table
from onvm_core.cli.options import ChainOptions, JsonOption, NameOption, with_option_groups
from onvm_core.cli.output import OutputOptions, print_json
from onvm_core.cli.table import number, table_of, text
from onvm_core.manager.api.messages import (
    ChainAddRequest,
    ChainListRequest,
    ChainRemoveRequest,
    ChainReply,
    ChainShowReply,
    ChainShowRequest,
    ChainsReply,
    DoneReply,
    Hop,
)

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

ChainName = Annotated[
    str,
    typer.Argument(metavar="CHAIN", help="Name of the chain.", autocompletion=names.chains),
]


@app.command("list")
@with_option_groups
def list_(name: NameOption = "main", *, output: OutputOptions) -> None:
    """List the chains.

    Examples:
        onvm chain list
        onvm chain list -o name
    """
    with connect(name) as client:
        chains = client.ask(ChainListRequest(), ChainsReply).chains
    output.show(
        chains, lambda: chain_table(chains), lambda: [f"chain/{chain.name}" for chain in chains]
    )


@app.command()
@with_option_groups
def add(
    chain: ChainName,
    near: Annotated[
        str,
        typer.Option(
            "--in",
            metavar="PORT",
            help="Port at which packets enter.",
            autocompletion=names.ports,
        ),
    ],
    far: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="PORT",
            help="Port at which they leave.",
            autocompletion=names.ports,
        ),
    ],
    options: ChainOptions,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Add a chain, or change one; packets take it at once.

    Examples:
        onvm chain add web --in lan --out wan --services firewall,nat
    """
    request = ChainAddRequest(
        name=chain,
        near=near,
        far=far,
        services=options.service_names,
        bidirectional=not options.one_way,
        track_flows=options.track_flows,
        on_failure=options.on_failure,
    )
    with connect(name) as client:
        reply = client.ask(request, ChainReply)
    if as_json:
        print_json(reply)
    else:
        print(f"chain {chain}: {near} → {' → '.join([*reply.services, far])}")


@app.command()
def remove(chain: ChainName, name: NameOption = "main") -> None:
    """Remove a chain; packets at its ports are dropped as no_chain.

    Examples:
        onvm chain remove web
    """
    with connect(name) as client:
        client.ask(ChainRemoveRequest(name=chain), DoneReply)
    print(f"removed chain {chain}")


@app.command()
@with_option_groups
def show(chain: ChainName, name: NameOption = "main", *, output: OutputOptions) -> None:
    """Show a chain and its paths, with SPI and SI (RFC 8300).

    Examples:
        onvm chain show main
    """
    with connect(name) as client:
        reply = client.ask(ChainShowRequest(name=chain), ChainShowReply)
    output.show(reply, lambda: _tables(reply), lambda: [f"chain/{reply.chain.name}"])


def _tables(reply: ChainShowReply) -> RenderableType:
    rows = [
        {
            "spi": path.spi,
            "way": "back" if path.is_reverse else "forth",
            "flows": f"{path.flows:,}",
            "hops": " → ".join(_hop(hop) for hop in path.hops),
        }
        for path in reply.paths
    ]
    columns = {
        "spi": number("spi"),
        "way": text("way"),
        "flows": number("flows"),
        "hops": text("instances [si]", folds=True),
    }
    none = "no path yet: they are made when flows come, if the chain tracks them"
    return Group(chain_table([reply.chain]), "", table_of("", rows, columns) if rows else none)


def _hop(hop: Hop) -> str:
    return f"{hop.instance} [{hop.si}]"
