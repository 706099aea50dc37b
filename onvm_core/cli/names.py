"""Names that the shell completes: of NFs, managers, and what a manager has.

A completion never fails and never takes long: whatever is missing has no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

__all__ = [
    "chains",
    "instances",
    "interfaces",
    "managers",
    "nfs",
    "nfs_in_list",
    "points",
    "ports",
    "services",
    "services_in_list",
    "uris",
]

ANSWER_S = 0.5
NET = Path("/sys/class/net")


def _completing(names: Callable[[typer.Context], Iterable[str]]) -> Callable[..., list[str]]:
    """A completion for typer, of all `names` that begin as the word does."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return sorted(name for name in set(names(ctx)) if name.startswith(incomplete))
        except Exception:  # noqa: BLE001  a line of the shell is no place for a message
            return []

    return complete


def _in_list(names: Callable[[typer.Context], Iterable[str]]) -> Callable[..., list[str]]:
    """The same for lists with commas: the last name is completed."""

    def with_others(ctx: typer.Context, incomplete: str) -> list[str]:
        others, comma, last = incomplete.rpartition(",")
        return [f"{others}{comma}{name}" for name in one(ctx, last)]

    one = _completing(names)
    return with_others


def _nfs(_: typer.Context) -> Iterable[str]:
    from onvm_core.plugins import discover

    return [package.name for package in discover()]


def _managers(_: typer.Context) -> Iterable[str]:
    from onvm_core.manager.api.directory import manager_names

    return manager_names()


def _status(ctx: typer.Context) -> Any:
    from onvm_core.manager.api.client import Client
    from onvm_core.manager.api.directory import manager_directory
    from onvm_core.manager.api.messages import StatusReply, StatusRequest

    with Client(manager_directory(ctx.params.get("name") or "main")) as client:
        return client.ask(StatusRequest(), StatusReply, ANSWER_S)


def _services(ctx: typer.Context) -> Iterable[str]:
    return [nf.service for nf in _status(ctx).report.nfs]


def _instances_and_services(ctx: typer.Context) -> Iterable[str]:
    nfs = _status(ctx).report.nfs
    return [name for nf in nfs if not nf.is_gone for name in (nf.instance, nf.service)]


def _chains(ctx: typer.Context) -> Iterable[str]:
    return [chain.name for chain in _status(ctx).chains]


def _ports(ctx: typer.Context) -> Iterable[str]:
    return [port.name for port in _status(ctx).report.ports]


def _points(ctx: typer.Context) -> Iterable[str]:
    report = _status(ctx).report
    return [
        *(port.name for port in report.ports),
        *(name for nf in report.nfs if not nf.is_gone for name in (nf.instance, nf.service)),
    ]


def _interfaces(_: typer.Context) -> Iterable[str]:
    return [folder.name for folder in NET.iterdir()]


def _uris(_: typer.Context) -> Iterable[str]:
    from onvm_core.plugins import load_plugins

    return [f"{scheme}:" for scheme in load_plugins().offers("onvm_port_kinds")]


nfs = _completing(_nfs)
nfs_in_list = _in_list(_nfs)
managers = _completing(_managers)
instances = _completing(_instances_and_services)
services = _completing(_services)
services_in_list = _in_list(_services)
chains = _completing(_chains)
ports = _completing(_ports)
points = _completing(_points)
interfaces = _completing(_interfaces)
uris = _completing(_uris)
