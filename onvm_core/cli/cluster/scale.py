"""``onvm cluster scale``."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

import typer

from onvm_core.cli.cluster.connection import ClusterOptions, author
from onvm_core.cli.options import JsonOption, names_in, with_option_groups
from onvm_core.cli.output import OutputOptions, print_json
from onvm_core.cli.table import Table, number, text
from onvm_core.cluster.scaling.host_policy import serving
from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.status import RequestStatus, read_requests, read_snapshot
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import OutcomeNode, RequestNode, check_name
from onvm_core.manager.config.sections import nearest
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["app", "check_max", "request_table"]

POLL_S = 0.02
GRACE_S = 10.0
STOP_DEADLINE_S = 30.0

app = typer.Typer(no_args_is_help=True)

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="Name of the service.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why; scale list shows it.")]


@app.command("list")
@with_option_groups
def list_(
    where: ClusterOptions,
    output: OutputOptions,
) -> None:
    """List requests that wait or ended within the last hour.

    Examples:
        onvm cluster scale list
    """
    with where.reach() as found:
        snapshot = read_snapshot(found.ensemble, found.paths)
        requests = read_requests(RequestQueue(found.ensemble, found.paths), snapshot)
    output.show(
        requests,
        lambda: request_table(requests),
        lambda: [f"request/{one.key}" for one in requests],
    )


@app.command()
@with_option_groups
def out(
    where: ClusterOptions,
    service: ServiceName,
    prefer: Annotated[
        str,
        typer.Option(
            metavar="HOST,…", help="Hosts to try first, in this order.", show_default="none"
        ),
    ] = "",
    reason: ReasonOption = "asked for",
    deadline_s: Annotated[
        float, typer.Option(min=0.1, max=86400, metavar="S", help="Seconds after which it expires.")
    ] = 30.0,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Name of the request; a second one of that name does nothing.",
            show_default="a new name",
        ),
    ] = None,
    placement: Annotated[str, typer.Option(metavar="NAME", help="Host policy.")] = "locality",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is served.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Ask for one more instance of a service.

    Examples:
        onvm cluster scale out firewall --prefer h2
    """
    key = check_name(key or f"{service}-{uuid.uuid4().hex[:12]}", "--key")
    now = time.time()
    request = RequestNode(
        key=key,
        service=service,
        reason=f"{reason} ({author()})",
        preferred=names_in(prefer),
        deadline=round(now + deadline_s, 3),
        made=round(now, 3),
        within_s=deadline_s,
        placement=placement,
    )
    with where.reach() as found:
        snapshot = read_snapshot(found.ensemble, found.paths)
        known = {one.service for host in snapshot.hosts.values() for one in host.plugins}
        if service not in known:
            raise ConfigError(
                f"expected a service that some host has an NF for; {nearest(service, known)}",
                field="scale out",
                value=service,
            )
        check_max(snapshot, service)
        outcome = _put(RequestQueue(found.ensemble, found.paths), request, wait=wait)
    _report(key, outcome, as_json)


def check_max(snapshot: Snapshot, service: str) -> None:
    """Check that the service may have one more instance.

    Raises:
        ConfigError: it has as many as it may have, or will have when requests have been served.
    """
    settings = snapshot.services.get(service)
    if settings is None:
        return
    waiting = sum(one.service == service and not one.stop for one in snapshot.requests.values())
    there = serving(snapshot, service)
    if there + waiting >= settings.max:
        more = f" and {waiting} requested" if waiting else ""
        raise ConfigError(
            f"expected fewer instances than its maximum of {settings.max} ({there} serve{more}); "
            f"to allow more: onvm cluster service set {service} --max N",
            field="scale out",
            value=service,
        )


@app.command("in")
@with_option_groups
def in_(
    where: ClusterOptions,
    service: ServiceName,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Host whose instance ends.",
            show_default="that of the newest instance",
        ),
    ] = None,
    reason: ReasonOption = "asked for",
    as_json: JsonOption = False,
) -> None:
    """End one instance of a service; another takes over its flows.

    Examples:
        onvm cluster scale in firewall
    """
    with where.reach() as found:
        snapshot = read_snapshot(found.ensemble, found.paths)
        running = sorted(
            (one.number, name, one.name)
            for name, node in snapshot.instances.items()
            for one in node.instances
            if service in one.services and one.state == "active"
        )
        chosen = [one for one in running if host in (None, one[1])]
        if not chosen:
            known = ", ".join(dict.fromkeys(name for _, name, _ in running))
            raise ConfigError(
                f"expected a service that has an instance there ({known or 'it has none'})",
                field="scale in",
                value=service,
            )
        _, name, instance = chosen[-1]
        now = time.time()
        request = RequestNode(
            key=f"{service}-{uuid.uuid4().hex[:12]}",
            service=service,
            reason=f"{reason} ({author()})",
            preferred=[name],
            stop=instance,
            deadline=round(now + STOP_DEADLINE_S, 3),
            made=round(now, 3),
        )
        outcome = _put(RequestQueue(found.ensemble, found.paths), request, wait=True)
    _report(request.key, outcome, as_json)


def _put(queue: RequestQueue, request: RequestNode, *, wait: bool) -> OutcomeNode:
    """Put a request into the queue, and wait for its outcome."""
    queue.put(request)
    outcome = queue.outcome(request.key)
    deadline = request.deadline + GRACE_S
    while wait and outcome is not None and outcome.state == "waiting" and time.time() < deadline:
        time.sleep(POLL_S)
        outcome = queue.outcome(request.key)
    if outcome is None or (wait and outcome.state == "waiting"):
        raise OnvmError(f"{request.key}: no agent has answered; see: onvm cluster status")
    return outcome


def _report(key: str, outcome: OutcomeNode, as_json: bool) -> None:
    if as_json:
        print_json({"key": key, "outcome": outcome})
    elif outcome.state == "done":
        print(f"{key}: {outcome.instance} on {outcome.host} ({outcome.why})")
    elif outcome.state == "waiting":
        print(f"{key}: in the queue")
    if outcome.state == "expired":
        raise OnvmError(f"{key} has expired: {outcome.why}")


def request_table(requests: list[RequestStatus]) -> Table:
    """Requests and their outcomes."""
    table = Table(
        "Requests",
        (
            text("time", 2),
            text("key", 1, folds=True),
            text("service"),
            text("state"),
            text("served by", folds=True),
            text("reason", 4, folds=True),
            text("why", folds=True),
            number("ms", 3),
        ),
    )
    for one in requests:
        took = "-" if one.ended is None else f"{(one.ended - one.made) * 1e3:,.0f}"
        served = "-" if one.host is None else f"{one.instance} on {one.host}"
        table.add(
            time.strftime("%H:%M:%S", time.localtime(one.made)),
            one.key,
            one.service,
            one.state,
            served,
            one.reason,
            one.why,
            took,
        )
    return table
