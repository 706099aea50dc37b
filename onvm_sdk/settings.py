# SPDX-License-Identifier: Apache-2.0
"""Configuration of an NF as a checked value.

A plugin describes its configuration as a `msgspec.Struct`. `convert` makes one from the content of
a TOML file. Every mistake becomes a `ConfigError` of one line, with file, field, value and what
was expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from onvm_sdk.errors import ConfigError
from onvm_sdk.spelling import one_of

__all__ = ["convert", "explain", "port_range"]

_T = TypeVar("_T")
_WHERE = re.compile(r"^(?P<text>.*?)(?: - at `\$?\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\[\d*\.*\]|[^.\[\]]+")
_PORTS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_CHOICE = re.compile(r"Invalid enum value '?(.*?)'?")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")


def _value_at(data: object, path: str) -> object:
    """Find the plain value at a path such as ``rules[1].src``; None if there is none."""
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(data, Mapping):
            data = data.get(step)
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return None
    return data if isinstance(data, str | int | float | bool) else None


def _type_at(kind: Any, path: str) -> Any:
    """Find msgspec's description of the type at a path; None if there is none."""
    found = msgspec.inspect.type_info(kind)
    for step in _STEP.findall(path):
        found = _inner(found, step)
    return _plain(found)


def _plain(found: Any) -> Any:
    """Take a type out of its metadata and its ``| None``."""
    if isinstance(found, msgspec.inspect.Metadata):
        return _plain(found.type)
    if isinstance(found, msgspec.inspect.UnionType):
        others = [one for one in found.types if not isinstance(one, msgspec.inspect.NoneType)]
        return _plain(others[0]) if len(others) == 1 else found
    return found


def _inner(found: Any, step: str) -> Any:
    found = _plain(found)
    if isinstance(found, msgspec.inspect.StructType):
        return next((one.type for one in found.fields if one.encode_name == step), None)
    if isinstance(found, msgspec.inspect.DictType):
        return found.value_type
    return getattr(found, "item_type", None)


def explain(error: msgspec.ValidationError, kind: Any) -> tuple[str, str]:
    """Say what msgspec expected when it refused to make a `kind`.

    Returns:
        The text of a `ConfigError`, "expected …", and the path of the field, as in
        ``rules[1].src``; "" for the whole.
    """
    match = _WHERE.match(" ".join(str(error).split()))
    text, path = (match["text"], match["path"] or "") if match else (str(error), "")
    if missing := _MISSING.fullmatch(text):
        return "expected a value; there is no default", f"{path}.{missing[1]}".lstrip(".")
    if unknown := _UNKNOWN.fullmatch(text):
        keys = [one.encode_name for one in getattr(_type_at(kind, path), "fields", ())]
        return f"expected {one_of(keys, unknown[1])}", f"{path}.{unknown[1]}".lstrip(".")
    if invalid := _CHOICE.fullmatch(text):
        return _choices(_type_at(kind, path), invalid[1]), path
    text = text[:1].lower() + text[1:]
    return (text if text.startswith("expected ") else f"expected a valid value: {text}"), path


def _choices(found: Any, given: str) -> str:
    if isinstance(found, msgspec.inspect.EnumType):
        return f"expected {one_of((one.value for one in found.cls), given)}"
    return f"expected {one_of(getattr(found, 'values', ()), given)}"


def convert(data: Mapping[str, Any], kind: type[_T], *, file: str | None = None) -> _T:
    """Make a `kind` of `data`.

    Args:
        data: the content of a configuration file.
        kind: a `msgspec.Struct`.
        file: the file, for the error message.

    Raises:
        ConfigError: a field is unknown, missing, of another type or out of range.
    """
    try:
        return msgspec.convert(dict(data), kind)
    except msgspec.ValidationError as error:
        expected, path = explain(error, kind)
        raise ConfigError(
            expected,
            file=file,
            field=path or None,
            value=_value_at(data, path) if path else None,
        ) from None


def port_range(text: int | str) -> range:
    """Read a port or "first-last" (both included) as a half-open range.

    Raises:
        ValueError: it is neither, or not within 0..65535.
    """
    match = _PORTS.fullmatch(str(text))
    if match is None:
        raise ValueError("expected a port or first-last")
    first, last = match.groups()
    ports = range(int(first), int(last or first) + 1)
    if not 0 <= ports.start < ports.stop <= 65536:
        raise ValueError("expected ports within 0-65535, first not above last")
    return ports
