"""The memory that an NF needs: what its manifest says, and what its configuration adds.

``memory_bytes`` of a manifest is an expression over the keys of its configuration::

    memory_bytes = "max_connections * 180 + (max_per_source > 0) * max_connections * 130"

It has numbers, texts, keys, ``+ - * /``, comparisons (1 or 0), and ``min``, ``max`` and ``count``
(the length of a list, 1 for anything else).
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from onvm_sdk.errors import ConfigError, ManifestError
from onvm_sdk.manifest import Manifest

__all__ = ["check_memory", "needed_mib", "sized"]

_LENGTH_MAX = 500
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "count": lambda value: len(value) if isinstance(value, list) else 1,
}


def _value(node: ast.AST, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return int(_OPERATORS[type(op)](_value(left, values), _value(right, values)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(one, values) for one in args))
    raise ValueError(ast.unparse(node))


def needed_mib(manifest: Manifest, config: Mapping[str, Any]) -> int:
    """Return the memory that an NF needs with a configuration.

    Args:
        config: checked against the manifest, with all defaults.

    Raises:
        ManifestError: the expression of the manifest is wrong.
    """
    text = manifest.memory_bytes
    if not text:
        return manifest.memory_mib
    try:
        if len(text) > _LENGTH_MAX:
            raise ValueError("it is too long")
        added = _value(ast.parse(text.strip(), mode="eval").body, config)
        return manifest.memory_mib + -(-int(added) >> 20)
    except (SyntaxError, TypeError, ValueError, ArithmeticError) as error:
        raise ManifestError(
            f"expected an expression over keys of the configuration ({error})",
            field="memory_bytes",
            value=text,
        ) from None


def sized(manifest: Manifest, config: Mapping[str, Any]) -> Manifest:
    """Return a manifest whose `memory_mib` is what a configuration needs."""
    if not manifest.memory_bytes:
        return manifest
    return manifest.replace(memory_mib=needed_mib(manifest, config), memory_bytes="")


def check_memory(
    manifest: Manifest, config: Mapping[str, Any], available_mib: int, file: str | None = None
) -> None:
    """Refuse a configuration that needs more memory than there is.

    Raises:
        ConfigError: names the key that adds most.
    """
    needed = needed_mib(manifest, config)
    if needed <= available_mib or not manifest.memory_bytes:
        return
    names = [
        node.id
        for node in ast.walk(ast.parse(manifest.memory_bytes.strip(), mode="eval"))
        if isinstance(node, ast.Name) and isinstance(config.get(node.id), int)
    ]
    field = max(names, key=lambda name: int(config[name]), default="memory_bytes")
    raise ConfigError(
        f"expected less: {manifest.name} would need {needed} MiB of memory, this host has "
        f"{available_mib}",
        file=file,
        field=field,
        value=config.get(field),
    )
