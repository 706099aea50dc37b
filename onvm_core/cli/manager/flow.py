"""``onvm flow``: flows of a running manager."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.manager.api.messages import FLOWS_MAX, Flow, FlowListRequest, FlowsReply

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}


@app.callback()
def _group() -> None:
    pass  # keeps `list` a separate command


@app.command("list")
def list_(
    limit: Annotated[
        int, typer.Option(min=0, max=FLOWS_MAX, metavar="N", help="Number of flows at most.")
    ] = 100,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """List flows, in both directions, each with its path."""
    with connect(name) as client:
        reply = client.ask(FlowListRequest(limit=limit), FlowsReply)
    if as_json:
        print_json(reply)
        return
    columns = {
        "protocol": "Proto",
        "from": "From",
        "to": "To",
        "port": "Port",
        "chain": "Chain",
        "way": "Way",
        "spi": "SPI",
        "instances": "Instances",
        "idle": "Idle s",
    }
    print_table([_row(flow) for flow in reply.flows], columns)
    print(f"{len(reply.flows):,} of {reply.total:,} flows")


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
