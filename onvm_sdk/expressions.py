"""Expressions in manifests, over the keys of a configuration.

They have numbers, texts, keys, ``+ - * /``, comparisons (1 or 0), and ``min``, ``max`` and
``count`` (the length of a list, 1 for anything else)::

    memory_bytes = "max_connections * 180 + (max_per_source > 0) * max_connections * 130"
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from onvm_sdk.errors import ManifestError

__all__ = ["evaluate"]

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


def evaluate(text: str, config: Mapping[str, Any], field: str) -> float:
    """Return the value of an expression.

    Args:
        config: a configuration with all its defaults.
        field: of the manifest, for error messages.

    Raises:
        ManifestError: the expression is wrong, or no number.
    """
    try:
        if len(text) > _LENGTH_MAX:
            raise ValueError("it is too long")
        value = _value(ast.parse(text.strip(), mode="eval").body, config)
        return value if isinstance(value, int) else float(value)
    except (SyntaxError, TypeError, ValueError, ArithmeticError) as error:
        raise ManifestError(
            f"expected an expression over keys of the configuration ({error})",
            field=field,
            value=text,
        ) from None
