"""``onvm scale``."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import NameOption, with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import Table, number, text
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.messages import (
    ScaledService,
    ScaleReply,
    ScaleRequest,
    ScaleStatusReply,
    ScaleStatusRequest,
)
from onvm_core.scaling.autoscaler import Decision
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["scale"]

TIMEOUT_S = 20.0
POLL_S = 0.02


@with_option_groups
def scale(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE|status",
            help="A service; status lists what is scaled.",
            autocompletion=names.services,
        ),
    ] = "status",
    count: Annotated[
        str,
        typer.Argument(
            metavar="N|auto",
            help="Number of instances; auto lets its policy decide.",
            show_default="none, with status",
        ),
    ] = "",
    name: NameOption = "main",
    *,
    output: OutputOptions,
) -> None:
    """Set the number of instances of a service, or show all of them.

    It returns when that many serve. If there are too many, the newest drain: they get no new
    flows, and end with their last one.

    Examples:
        onvm scale status
        onvm scale firewall 3
        onvm scale firewall auto
    """
    if service == "status" and not count:
        with connect(name) as client:
            reply = client.ask(ScaleStatusRequest(), ScaleStatusReply)
        output.show(
            reply,
            lambda: _tables(reply),
            lambda: [f"service/{one.service}" for one in reply.services],
        )
        return
    wanted = _wanted(count)
    with connect(name) as client:
        done = client.ask(ScaleRequest(service=service, instances=wanted), ScaleReply)
        if done.decision is not None and done.decision.error:
            raise OnvmError(done.decision.error)
        if wanted is not None:
            _wait_serving(client, service, wanted)
    output.show(done, lambda: _done(service, wanted, done), lambda: [f"service/{service}"])


def _done(service: str, wanted: int | None, done: ScaleReply) -> str:
    if done.decision is None:
        return f"{service}: as its policy wants"
    what = ", ".join(done.decision.actions) or "as it was"
    return f"{service}: {wanted} serve ({what})"


def _wanted(count: str) -> int | None:
    if count == "auto":
        return None
    if not count.isdecimal() or not 1 <= int(count) <= 64:
        raise ConfigError("expected a number from 1 to 64, or auto", field="N", value=count)
    return int(count)


def _wait_serving(client: Client, service: str, wanted: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        reply = client.ask(ScaleStatusRequest(), ScaleStatusReply)
        state = next(one for one in reply.services if one.service == service)
        if state.serving == wanted:
            return
        if time.monotonic() > deadline:
            raise OnvmError(
                f"{service}: {state.serving} of {wanted} serve after {TIMEOUT_S:g} s; "
                "see onvm status"
            )
        time.sleep(POLL_S)


def _tables(reply: ScaleStatusReply) -> RenderableType:
    services = Table(
        "Services",
        (
            text("service"),
            text("mode"),
            number("min"),
            number("max"),
            number("target %", 2),
            number("util %", 1),
            number("demand", 3),
            number("serve"),
            number("start", 1),
            number("fail", 1),
            number("standby", 1),
            number("drain", 1),
        ),
    ).add_all(map(_service, reply.services))
    decisions = Table(
        "Decisions",
        (
            text("time"),
            text("service"),
            text("by", 2),
            text("from"),
            text("reason", folds=True),
            text("done", folds=True),
            number("kpps", 3),
            number("shed", 3),
            number("ms", 4),
        ),
    ).add_all(map(_decision, reply.decisions))
    if not reply.services:
        return "no service is scaled: add [scale.SERVICE], or use onvm scale SERVICE N"
    return Group(services, "", decisions)


def _service(one: ScaledService) -> tuple[str, ...]:
    return (
        one.service,
        one.mode,
        str(one.min),
        str(one.max),
        f"{one.target:.0%}".rstrip("%"),
        "-" if one.utilisation is None else f"{one.utilisation * 100:.0f}",
        "-" if one.demand is None else f"{one.demand:.2f}",
        str(one.serving),
        str(one.starting),
        str(one.failing),
        str(one.standby),
        str(one.draining),
    )


def _decision(one: Decision) -> tuple[str, ...]:
    figures = one.figures
    return (
        time.strftime("%H:%M:%S", time.localtime(one.time)),
        one.service,
        one.by,
        f"{one.before} → {one.wanted}",
        one.reason,
        one.error or ", ".join(one.actions),
        "-" if figures is None else f"{figures.pps / 1e3:,.1f}",
        "-" if figures is None else f"{figures.sheds:,}",
        "-" if one.done_ms is None else f"{one.done_ms:,.0f}",
    )
