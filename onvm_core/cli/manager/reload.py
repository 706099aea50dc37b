"""``onvm reload``, and what it shares with ``onvm nf config``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.config_messages import (
    ChangeReply,
    ChangeStateRequest,
    Difference,
    ReconfigureRequest,
    ReloadRequest,
)
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["difference_lines", "print_change", "reload", "wait_changed"]

CHECK_TIMEOUT_S = 60.0
TIMEOUT_S = 200.0
POLL_S = 0.02
WIDTH = 80
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def reload(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The file.", show_default="the one of onvm up"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it, show what differs, and change nothing.")
    ] = False,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Make a running manager as its file says, while packets flow.

    Ports, chains, instances and configurations of NFs change, and all files that these name are
    read again. With a mistake anywhere, nothing changes.

    Examples:
        onvm reload --dry-run
        onvm reload
    """
    path = None if file is None else str(file.absolute())
    with connect(name) as client:
        request = ReloadRequest(path=path, dry_run=dry_run)
        done = wait_changed(client, request)
    if as_json:
        print_json(done)
    else:
        print_change(done, is_dry=dry_run)


def wait_changed(client: Client, request: ReloadRequest | ReconfigureRequest) -> ChangeReply:
    """Begin a change, and wait until it is made.

    Raises:
        ConfigError: nothing is changed; carries the mistake.
    """
    reply = client.ask(request, ChangeReply, CHECK_TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while reply.step not in ("done", "failed"):
        if time.monotonic() > deadline:
            raise OnvmError(f"not changed within {TIMEOUT_S:g} s; see onvm status")
        time.sleep(POLL_S)
        reply = client.ask(ChangeStateRequest(number=reply.number), ChangeReply, CHECK_TIMEOUT_S)
    if reply.step == "failed":
        raise ConfigError(reply.error)
    return reply


def print_change(done: ChangeReply, *, is_dry: bool = False) -> None:
    """Print what differs, and how long it took."""
    for line in difference_lines(done.changes):
        print(line)
    if not done.changes:
        print("nothing differs")
    if done.replaced:
        verb = "would be replaced" if is_dry else "replaced by new instances"
        print(f"{verb}: {', '.join(done.replaced)}")
    if is_dry:
        print(f"dry run: nothing is changed (checked in {done.prepare_ms:,.0f} ms)")
    elif done.changes:
        print(f"prepared in {done.prepare_ms:,.0f} ms, applied in {done.apply_ms:,.1f} ms")


def difference_lines(changes: Sequence[Difference]) -> list[str]:
    """Lines of at most `WIDTH` letters."""
    lines = []
    for one in changes:
        value = f"{one.before} → {one.after}" if one.action == "changed" else one.before + one.after
        head = f"{_SIGNS[one.action]} {one.place}"
        whole = f"{head}: {value}"
        if len(whole) <= WIDTH:
            lines.append(whole)
        elif len(value) + 4 <= WIDTH:
            lines += [f"{head}:", f"    {value}"]
        else:
            lines += [f"{head}:", f"    {one.before}", f"    → {one.after}"]
    return [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]
