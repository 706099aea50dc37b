"""``onvm nf run`` and ``onvm nf stop``: instances of a running manager."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cli.watch import Watch
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.messages import (
    InstancesReply,
    InstancesRequest,
    LaunchedNf,
    NfRunRequest,
    NfStopRequest,
)
from onvm_sdk.errors import ConfigError, OnvmError
from onvm_sdk.source import is_source, source_name

__all__ = ["run", "stop"]

TIMEOUT_S = 90.0
POLL_S = 0.02
WATCH_S = 0.2


def run(
    nf: Annotated[
        str,
        typer.Argument(
            metavar="NF",
            help="A table of onvm.toml, the name of an NF, or FILE:Class.",
            autocompletion=names.nfs,
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its configuration.", show_default="as onvm.toml says"),
    ] = None,
    instance: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=9999,
            metavar="N",
            help="Number of the instance NF-N.",
            show_default="the first free one",
        ),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its launcher.", show_default="as onvm.toml says"),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Stay, and replace the instance when its file FILE.py changes."
        ),
    ] = False,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Start an instance, and return when it serves.

    Examples:
        onvm nf run firewall --config strict.toml
    """
    if config is not None and not config.is_file():
        raise ConfigError("expected a file that exists", field="--config", value=str(config))
    path = None if config is None else str(config.absolute())
    nf = source_name(nf) if is_source(nf) else nf
    # Before the start: a change while the NF loads counts.
    watched = Watch([nf]) if watch else None
    request = NfRunRequest(name=nf, config=path, instance=instance, launcher=launcher)
    with connect(name) as client:
        started = client.ask(request, InstancesReply).launched[0]
        serving = _wait_active(client, started)
    if as_json:
        print_json(serving)
    else:
        print(f"{serving.instances[0]} serves (pid {serving.pid})", flush=True)
    if watched is not None:
        _follow(watched, request, serving.instances[0], name)


def stop(
    nf: Annotated[
        str,
        typer.Argument(
            metavar="INSTANCE",
            help="An instance, or a service for all its instances.",
            autocompletion=names.instances,
        ),
    ],
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """End instances in good order, and return when they are gone.

    Examples:
        onvm nf stop firewall-2
    """
    with connect(name) as client:
        stopped = client.ask(NfStopRequest(name=nf), InstancesReply).launched
        _wait_gone(client, {name for one in stopped for name in one.instances})
    if as_json:
        print_json(stopped)
    else:
        print(f"stopped {', '.join(name for one in stopped for name in one.instances) or nf}")


def _follow(watch: Watch, request: NfRunRequest, instance: str, name: str) -> None:
    """Replace the instance at each change of its file; end it with Ctrl-C."""
    request = msgspec.structs.replace(request, instance=None)
    with stop_on_signals() as stop:
        while not stop:
            time.sleep(WATCH_S)
            if watch.changed():
                instance = _replace(request, instance, name)
    with connect(name) as client:
        client.ask(NfStopRequest(name=instance), InstancesReply)
        _wait_gone(client, {instance})


def _replace(request: NfRunRequest, instance: str, name: str) -> str:
    """Start the NF as its file is now, then stop the old instance; return the one that serves."""
    try:
        with connect(name) as client:
            started = client.ask(request, InstancesReply).launched[0]
            serving = _wait_active(client, started)
            client.ask(NfStopRequest(name=instance), InstancesReply)
            _wait_gone(client, {instance})
    except OnvmError as error:
        print(f"{instance} goes on: {error}", file=sys.stderr)
        return instance
    print(f"{serving.instances[0]} serves (pid {serving.pid})", flush=True)
    return serving.instances[0]


def _wait_active(client: Client, started: LaunchedNf) -> LaunchedNf:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        now = _find(client, started.instances[0])
        if now is None:
            raise OnvmError(f"{started.instances[0]} was stopped")
        if now.state == "active":
            return now
        if now.restarts:
            client.ask(NfStopRequest(name=started.instances[0]), InstancesReply)
            raise OnvmError(now.reason)
        time.sleep(POLL_S)
    client.ask(NfStopRequest(name=started.instances[0]), InstancesReply)
    raise OnvmError(f"{started.instances[0]} was not ready within {TIMEOUT_S:g} s")


def _wait_gone(client: Client, instances: set[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while any(_find(client, instance) for instance in instances):
        if time.monotonic() > deadline:
            raise OnvmError(f"{', '.join(sorted(instances))} did not end within {TIMEOUT_S:g} s")
        time.sleep(POLL_S)


def _find(client: Client, instance: str) -> LaunchedNf | None:
    launched = client.ask(InstancesRequest(), InstancesReply).launched
    return next((one for one in launched if instance in one.instances), None)
