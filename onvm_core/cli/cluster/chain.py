"""``onvm cluster chain``."""

from __future__ import annotations

from typing import Annotated

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
from onvm_core.cluster.tree.definitions import Chains, check_chain
from onvm_core.cluster.tree.nodes import ChainNode
from onvm_core.manager.classifier import MatchConfig
from onvm_core.manager.sections import nearest
from onvm_core.manager.view import PortView
from onvm_sdk.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

ChainName = Annotated[str, typer.Argument(metavar="CHAIN")]


@app.command("list")
def list_(
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the chains."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        chains = read_snapshot(found.ensemble, found.paths).chains
    if as_json:
        print_json(chains)
        return
    rows = [
        {"name": name, "revision": node.revision, "way": _way(node), "number": node.number}
        for name, node in chains.items()
    ]
    print_table(rows, {"name": "Chain", "revision": "Rev", "number": "Number", "way": "Way"})


def _way(node: ChainNode) -> str:
    ends = [f"{end.host}:{end.port}" for end in (node.near, node.far)]
    arrow = " ⇄ " if node.bidirectional else " → "
    return arrow.join([ends[0], *node.services, ends[1]])


@app.command()
def add(
    chain: ChainName,
    near: Annotated[str, typer.Option("--in", metavar="HOST:PORT", help="Port packets come from.")],
    far: Annotated[str, typer.Option("--out", metavar="HOST:PORT", help="Port behind the chain.")],
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
    match: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE,…", help="Flows that take it, like dst_port=80."),
    ] = None,
    revision: Annotated[
        int | None,
        typer.Option(min=0, help="Change it only if it is at this revision; 0: only if new."),
    ] = None,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a chain, or change the one of that name; all hosts follow at once."""
    if wait and bypass:
        raise ConfigError("expected one of the two", field="--bypass, --wait")
    rules = None if match is None else [_match(text) for text in match]
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        chains = Chains(found.ensemble, found.paths)
        known = chains.get(chain)
        last = chains.last(chain) if revision is None else revision
        node = ChainNode(
            number=0 if known is None else known.number,
            revision=last + 1,
            near=_port("--in", near),
            far=_port("--out", far),
            services=[one.strip() for one in services.split(",") if one.strip()],
            bidirectional=not one_way,
            track_flows=track_flows,
            on_failure="wait" if wait else "bypass" if bypass else "drop",
            match=rules,
        )
        check_chain(read_snapshot(found.ensemble, found.paths), node)
        if known is None:
            node = msgspec.structs.replace(node, number=chains.new_number())
        chains.put(chain, node, author())
    if as_json:
        print_json(node)
    else:
        print(f"chain {chain}, revision {node.revision}: {_way(node)}")


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
        raise ConfigError(str(error), field="--match", value=text) from None
    rule.rule("")
    return rule


@app.command()
def remove(
    chain: ChainName,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
) -> None:
    """Remove a chain; its history stays, and rollback brings it back."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        if not Chains(found.ensemble, found.paths).remove(chain, author()):
            known = read_snapshot(found.ensemble, found.paths).chains
            raise ConfigError(
                f"expected a chain; {nearest(chain, known)}", field="chain remove", value=chain
            )
    print(f"removed chain {chain}")


@app.command()
def show(
    chain: ChainName,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a chain."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        node = Chains(found.ensemble, found.paths).get(chain)
        if node is None:
            known = read_snapshot(found.ensemble, found.paths).chains
            raise ConfigError(
                f"expected a chain; {nearest(chain, known)}", field="chain show", value=chain
            )
    if as_json:
        print_json(node)
    else:
        print(f"chain {chain}, revision {node.revision}, number {node.number}: {_way(node)}")


@app.command()
def history(
    chain: ChainName,
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who has changed a chain, and how."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        print_history(Chains(found.ensemble, found.paths).history(chain), as_json)


@app.command()
def rollback(
    chain: ChainName,
    revision: Annotated[int, typer.Argument(min=1, help="See history.")],
    ensemble: EnsembleOption = None,
    cluster: ClusterOption = None,
    manager: ManagerOption = "main",
    credentials: CredentialsOption = None,
    tls: TlsOption = None,
) -> None:
    """Make a chain what it was at a revision."""
    with reach(manager, ensemble, cluster, credentials, tls) as found:
        node = Chains(found.ensemble, found.paths).rollback(chain, revision, author())
    print(f"chain {chain}, revision {node.revision}: {_way(node)}")
