# SPDX-License-Identifier: Apache-2.0
"""Backends in a file that other programs write.

Two forms: the JSON of Prometheus' service discovery by files, groups of targets with labels, of
which `weight` and `backup` count; and a plain list, one backend in a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from onvm_nf_lb.config import BackendText
from onvm_sdk.errors import ConfigError

__all__ = ["Entries", "parse", "read"]

Entries = list[tuple[BackendText, str]]
"""Backends, each with the name of its place in the file."""
_BYTES_MAX = 16 << 20
_TARGET = re.compile(r"(?:\[([^]]*)\]|([^:\[\]]+)|([^\[\]]*:[^\[\]]*:[^\[\]]*))(?::(\d{1,5}))?")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


class _Group(msgspec.Struct):
    """A group of targets; other fields and labels do not matter."""

    targets: list[str]
    labels: dict[str, str] = {}


def read(path: str) -> Entries:
    """Read a file.

    Raises:
        ConfigError: naming the file, the place, the value and what was expected.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        expected = f"expected a file that can be read: {(error.strerror or '').lower()}"
        raise ConfigError(expected, file=path) from None
    if len(data) > _BYTES_MAX:
        raise ConfigError(f"expected at most {_BYTES_MAX >> 20} MiB", file=path)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError("expected UTF-8", file=path) from None
    return parse(text, path)


def parse(text: str, path: str | os.PathLike[str]) -> Entries:
    """Read the content of a file; see `read`."""
    if text.lstrip().startswith("["):
        return list(_groups(text, path))
    return list(_lines(text, path))


def _groups(text: str, path: str | os.PathLike[str]) -> Iterator[tuple[BackendText, str]]:
    try:
        listed = msgspec.json.decode(text, type=list[_Group | str])
    except msgspec.ValidationError as error:
        reason = str(error).lower()
        raise ConfigError(f"expected targets, or groups of them: {reason}", file=path) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"expected JSON: {str(error).lower()}", file=path) from None
    for i, group in enumerate(listed):
        if isinstance(group, str):
            yield _backend(group, {}, f"[{i}]", path), f"[{i}]"
            continue
        for j, target in enumerate(group.targets):
            place = f"[{i}].targets[{j}]"
            yield _backend(target, group.labels, place, path), place


def _lines(text: str, path: str | os.PathLike[str]) -> Iterator[tuple[BackendText, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = f"line {number}"
        labels = {}
        for word in words[1:]:
            name, _, value = word.partition("=")
            if name not in ("weight", "backup"):
                raise ConfigError(
                    "expected weight=NUMBER or backup", file=path, field=place, value=word
                )
            labels[name] = value if "=" in word else "true"
        yield _backend(words[0], labels, place, path), place


def _backend(
    target: str, labels: Mapping[str, Any], place: str, path: str | os.PathLike[str]
) -> BackendText:
    def refuse(expected: str, field: str, value: str) -> ConfigError:
        return ConfigError(expected, file=path, field=field, value=value)

    match = _TARGET.fullmatch(target)
    if match is None:
        raise refuse("expected ADDRESS or ADDRESS:PORT", place, target)
    port, weight, backup = match[4] or "0", labels.get("weight", "1"), labels.get("backup", "")
    if not port.isascii() or int(port) > 65535:
        raise refuse("expected a port up to 65535", place, target)
    if not weight.isascii() or not weight.isdigit() or int(weight) > 1000:
        raise refuse("expected 0 to 1000", f"{place}.weight", weight)
    if backup.lower() not in _TRUTH:
        raise refuse("expected true or false", f"{place}.backup", backup)
    address = match[1] or match[2] or match[3]
    return BackendText(address, int(port), int(weight), _TRUTH[backup.lower()])
