"""``onvm chain``: chains of a running manager."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.manager.connect import JsonOption, NameOption, connect
from onvm_core.cli.manager.status import chain_table
from onvm_core.cli.output import make_console, print_json, print_table
from onvm_core.manager.messages import (
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
from onvm_sdk.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

ChainName = Annotated[str, typer.Argument(metavar="CHAIN")]


@app.command("list")
def list_(name: NameOption = "main", as_json: JsonOption = False) -> None:
    """List the chains."""
    with connect(name) as client:
        chains = client.ask(ChainListRequest(), ChainsReply).chains
    if as_json:
        print_json(chains)
    else:
        make_console().print(chain_table(chains))


@app.command()
def add(
    chain: ChainName,
    near: Annotated[str, typer.Option("--in", metavar="PORT", help="Port packets come from.")],
    far: Annotated[str, typer.Option("--out", metavar="PORT", help="Port behind the chain.")],
    services: Annotated[
        str, typer.Option(metavar="SERVICE,SERVICE…", help="Services in order; empty for none.")
    ] = "",
    one_way: Annotated[bool, typer.Option("--one-way", help="No way back.")] = False,
    track_flows: Annotated[
        bool, typer.Option("--track-flows/--no-track-flows", help="Look each flow up.")
    ] = True,
    bypass: Annotated[
        bool, typer.Option("--bypass", help="Go on without a service that has no instance.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for a service that has no instance.")
    ] = False,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Add a chain, or change the one of that name; packets take it at once."""
    if wait and bypass:
        raise ConfigError("expected one of the two", field="--bypass, --wait")
    request = ChainAddRequest(
        name=chain,
        near=near,
        far=far,
        services=[service.strip() for service in services.split(",") if service.strip()],
        bidirectional=not one_way,
        track_flows=track_flows,
        on_failure="wait" if wait else "bypass" if bypass else "drop",
    )
    with connect(name) as client:
        reply = client.ask(request, ChainReply)
    if as_json:
        print_json(reply)
    else:
        print(f"chain {chain}: {near} → {' → '.join([*reply.services, far])}")


@app.command()
def remove(chain: ChainName, name: NameOption = "main") -> None:
    """Remove a chain: what then comes to its ports is dropped as no_chain."""
    with connect(name) as client:
        client.ask(ChainRemoveRequest(name=chain), DoneReply)
    print(f"removed chain {chain}")


@app.command()
def show(chain: ChainName, name: NameOption = "main", as_json: JsonOption = False) -> None:
    """Show a chain and the rendered paths that its flows take, with SPI and SI (RFC 8300)."""
    with connect(name) as client:
        reply = client.ask(ChainShowRequest(name=chain), ChainShowReply)
    if as_json:
        print_json(reply)
        return
    make_console().print(chain_table([reply.chain]))
    rows = [
        {
            "spi": path.spi,
            "way": "back" if path.is_reverse else "forth",
            "flows": f"{path.flows:,}",
            "hops": " → ".join(_hop(hop) for hop in path.hops),
        }
        for path in reply.paths
    ]
    print()
    if rows:
        print_table(rows, {"spi": "SPI", "way": "Way", "flows": "Flows", "hops": "Instances [SI]"})
    else:
        print("no path yet: they are made when flows come, if the chain tracks them")


def _hop(hop: Hop) -> str:
    return f"{hop.instance} [{hop.si}]"
