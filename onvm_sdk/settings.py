# SPDX-License-Identifier: Apache-2.0
"""Configuration of an NF as a checked value.

A plugin describes its configuration as a `msgspec.Struct`; `convert` makes one from what a TOML
file held, and every mistake becomes a one-line `ConfigError` that names file, field, value and
what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from onvm_sdk.errors import ConfigError

__all__ = ["convert", "port_range"]

_T = TypeVar("_T")
_WHERE = re.compile(r"^(?P<text>.*?)(?: - at `\$?\.?(?P<path>[^`]*)`)?$", re.DOTALL)


def _value_at(data: object, path: str) -> object:
    """Find what stands at a path such as ``rules[1].src``; None if nothing does."""
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(data, Mapping):
            data = data.get(step)
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return None
    return data if isinstance(data, str | int | float | bool) else None


def convert(data: Mapping[str, Any], kind: type[_T], *, file: str | None = None) -> _T:
    """Make a `kind` of `data`.

    Args:
        file: named in the error.

    Raises:
        ConfigError: a field is unknown, missing, of another type or out of range.
    """
    try:
        return msgspec.convert(dict(data), kind)
    except msgspec.ValidationError as error:
        match = _WHERE.match(str(error))
        text, path = (match["text"], match["path"] or "") if match else (str(error), "")
        raise ConfigError(
            text[:1].lower() + text[1:],
            file=file,
            field=path or None,
            value=_value_at(data, path) if path else None,
        ) from None


def port_range(text: int | str) -> range:
    """Read a port or "first-last" (both included) as a half-open range.

    Raises:
        ValueError: it is neither, or not within 0..65535.
    """
    first, dash, last = str(text).partition("-")
    try:
        ports = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise ValueError(f"expected a port or first-last, got {text!r}") from None
    if not 0 <= ports.start < ports.stop <= 65536:
        raise ValueError(f"expected ports within 0-65535, first not above last, got {text!r}")
    return ports
