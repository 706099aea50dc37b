# SPDX-License-Identifier: Apache-2.0
"""Checks of backends, as written in the configuration and as values."""

from __future__ import annotations

import re
import shutil
from typing import Annotated, Literal

import msgspec

__all__ = ["Check", "CheckText", "Passive", "Target", "read_check"]

_Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=3600)]
_Times = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")
_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[!-.0-~]*")
_FIELDS = {"path": ("http", "https"), "host": ("http", "https"), "status": ("http", "https")}


class CheckText(msgspec.Struct, forbid_unknown_fields=True):
    """The check of a VIP's backends, as written in the configuration file."""

    type: Literal["tcp", "http", "https", "icmp", "script", "none"] = "none"
    interval_s: _Seconds = 2.0
    timeout_s: _Seconds = 1.0
    rise: _Times = 2
    fall: _Times = 3
    port: _Port = 0
    path: str | None = None
    host: str | None = None
    status: str | None = None
    command: list[str] = []


class Passive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a backend that fails clients gets no new ones for a while."""

    failures: _Times = 3
    window_s: _Seconds = 10.0
    out_s: _Seconds = 10.0


class Check(msgspec.Struct, frozen=True):
    """A check; `status` has ranges with both ends."""

    type: str
    interval_s: float
    timeout_s: float
    rise: int
    fall: int
    port: int = 0
    path: str = "/"
    host: str = ""
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    command: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True):
    """What a check looks at. Backends of several VIPs may be the same."""

    check: Check
    address: str
    port: int

    def __str__(self) -> str:
        at = f"[{self.address}]" if ":" in self.address else self.address
        return f"{at}:{self.port}" if self.port else self.address


def _statuses(text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        match = _STATUS.fullmatch(part.strip())
        if match is None:
            raise ValueError
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError
        ranges.append((first, last))
    return tuple(ranges)


def read_check(text: CheckText) -> Check | None:
    """Return the check, or None for the type "none".

    Raises:
        ValueError: with the field, its value and what was expected instead.
    """
    for field, types in _FIELDS.items():
        value = getattr(text, field)
        if value is not None and text.type not in types:
            raise ValueError(field, value, "expected it with the types http and https only")
    if text.command and text.type != "script":
        raise ValueError("command", text.command[0], "expected it with the type script only")
    if text.port and text.type in ("icmp", "none"):
        raise ValueError("port", text.port, f"expected none with the type {text.type}")
    if text.type == "none":
        return None
    if text.type == "script" and (not text.command or shutil.which(text.command[0]) is None):
        program = text.command[0] if text.command else ""
        raise ValueError(
            "command", program, "expected a program that can be run, and its arguments"
        )
    path, host, status = text.path or "/", text.host or "", text.status or "200-399"
    if not _PATH.fullmatch(path):
        raise ValueError("path", path, "expected a path from / on, without spaces")
    if not _HOST.fullmatch(host):
        raise ValueError("host", host, "expected the name of a host")
    try:
        statuses = _statuses(status)
    except ValueError:
        expected = "expected status codes such as 200 or 200-399, with commas between"
        raise ValueError("status", status, expected) from None
    return Check(
        text.type,
        text.interval_s,
        text.timeout_s,
        text.rise,
        text.fall,
        text.port,
        path,
        host,
        statuses,
        tuple(text.command),
    )
