"""``onvm flow``: flows of a running manager."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import FilterOption, NameOption, with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import number, table_of, text
from onvm_core.manager.api.messages import FLOWS_MAX, Flow, FlowListRequest, FlowsReply

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}


@app.callback()
def _group() -> None:
    pass  # keeps `list` a separate command


@app.command("list")
@with_option_groups
def list_(
    limit: Annotated[
        int, typer.Option(min=0, max=FLOWS_MAX, metavar="N", help="Number of flows at most.")
    ] = 100,
    filter_text: FilterOption = "",
    name: NameOption = "main",
    *,
    output: OutputOptions,
) -> None:
    """List flows, in both directions, each with its path.

    Examples:
        onvm flow list --limit 20
        onvm flow list --filter 'host 10.0.0.5 and tcp port 443'
    """
    with connect(name) as client:
        reply = client.ask(FlowListRequest(limit=limit, filter=filter_text), FlowsReply)
    output.show(reply, lambda: _table(reply))


def _table(reply: FlowsReply) -> RenderableType:
    columns = {
        "protocol": text("proto"),
        "from": text("from"),
        "to": text("to"),
        "port": text("port", 3),
        "chain": text("chain", 1),
        "way": text("way", 2),
        "spi": number("spi", 5),
        "instances": text("instances", folds=True),
        "idle": number("idle s", 4),
    }
    flows = table_of("", map(_row, reply.flows), columns)
    return Group(flows, f"{len(reply.flows):,} of {reply.total:,} flows")


def _row(flow: Flow) -> dict[str, object]:
    return {
        "protocol": _PROTOCOLS.get(flow.protocol, flow.protocol),
        "from": _end(flow.src, flow.src_port),
        "to": _end(flow.dst, flow.dst_port),
        "port": flow.port,
        "chain": flow.chain,
        "way": "back" if flow.is_reverse else "forth",
        "spi": flow.spi,
        "instances": " ".join(flow.instances),
        "idle": f"{flow.idle_s:.1f}",
    }


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
