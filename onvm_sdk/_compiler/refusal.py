# mypy: ignore-errors
# numba has no types to check against.
"""The error of a kernel that cannot be compiled: one line with the author's file and line."""

from __future__ import annotations

import builtins
import dis
import re
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from numba import types
from numba.core.errors import TypingError

from onvm_sdk.errors import PluginError

__all__ = ["check_calls", "check_returns", "refusal"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'^File "(?P<file>[^"]*)", line (?P<line>\d+):', re.MULTILINE)
_FAILED = re.compile(r"^Failed in \w+ mode pipeline.*\n", re.MULTILINE)
_SPECIFIC = re.compile(r"raised a specific error:\n\s*\w+: (.*)")
_DETAIL = re.compile(r"\s*(During:|Raised from|File \"|\^)")
_HEADER = re.compile(r"onvm\.Header\((\w+)\)")
_PLAIN_FUNCTION = re.compile(r"Untyped global name '(\w+)'.*<class 'function'>")
_WITHOUT_LOCK = ("print", "input", "open")
"""Functions of Python that need its lock, which a kernel runs without."""


def refusal(error: Exception, function: Callable[..., Any]) -> PluginError:
    """Turn an exception of numba into the error that the author reads."""
    text = _COLOUR.sub("", str(error))
    inner = list(_FAILED.finditer(text))
    text = text[inner[-1].end() :] if inner else text
    line = _SPECIFIC.findall(text)[-1:] or [
        each for each in map(str.strip, text.splitlines()) if each and not each.startswith("- Res")
    ]
    line = _DETAIL.split(line[0])[0].strip().rstrip(".") or line[0]
    if plain := _PLAIN_FUNCTION.match(line):
        line = f"{plain[1]} is an ordinary function: mark it with @numba.njit"
    line = _HEADER.sub(r"pkt.\1", line).replace("onvm.Packet", "pkt")
    return _error(line, function, _line_of(text, error, function))


def check_calls(function: Callable[..., Any]) -> None:
    """Refuse calls that a compiled kernel would never return from.

    Raises:
        PluginError: it, or a function that it calls, prints or reads.
    """
    for inner, name, line in _global_names(function, set()):
        if name in _WITHOUT_LOCK and inner.__globals__.get(name, None) is None:
            text = (
                f"{name}() needs Python's lock, which a compiled kernel runs without: use a "
                'counter, or @kernel(compile="never") while you search for a mistake'
            )
            raise _error(text, inner, line)


def check_returns(kind: Any) -> None:
    """Refuse a kernel that returns what can be no verdict.

    Raises:
        NumbaError: `kind` is another type than an integer, a Verdict or None.
    """
    inner = kind.type if isinstance(kind, types.Optional) else kind
    if isinstance(inner, types.Boolean) or not isinstance(
        inner, (types.Integer, types.IntEnumMember, types.NoneType)
    ):
        raise TypingError(f"it returns {inner}, expected a Verdict or None")


def _error(text: str, function: Callable[..., Any], line: int) -> PluginError:
    return PluginError(
        f"expected a function that numba can compile: {text}",
        file=f"{function.__code__.co_filename}:{line}",
        field=function.__qualname__,
    )


def _line_of(text: str, error: Exception, function: Callable[..., Any]) -> int:
    """The author's line; numba names files relative to the working directory."""
    file = function.__code__.co_filename.rpartition("/")[2]
    for place in _PLACE.finditer(text):
        if place["file"].rpartition("/")[2] == file:
            return int(place["line"])
    loc = getattr(error, "loc", None)
    if loc is not None and str(loc.filename).rpartition("/")[2] == file:
        return int(loc.line)
    found = re.search(rf"{re.escape(file)} \((\d+)\)", text)
    return int(found[1]) if found else function.__code__.co_firstlineno


def _global_names(
    function: Callable[..., Any], seen: set[int]
) -> Iterator[tuple[Callable[..., Any], str, int]]:
    """Each global that a function names, and those of the functions that it calls."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    line = function.__code__.co_firstlineno
    for instruction in dis.get_instructions(function):
        line = (instruction.positions and instruction.positions.lineno) or line
        if instruction.opname != "LOAD_GLOBAL":
            continue
        name = instruction.argval
        yield function, name, line
        if not hasattr(builtins, name):
            yield from _global_names(function.__globals__.get(name), seen)
