"""The expectations of each hook on an offer and its target, and the faults of those that differ.

The checks need no object: a class must have the methods, and they must take the arguments. The
behaviour of a method is not checked.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["fault_of", "offer_fault"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

_CLASSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "onvm_classifiers": {"rules": ("port", "chains")},
    "onvm_placement_policies": {"place": ("need", "resources")},
    "onvm_scaling_policies": {"decide": ("history",)},
    "onvm_host_policies": {"order": ("request", "candidates")},
    "onvm_launchers": {
        "obstacle": (),
        "unenforced": ("limits",),
        "launch": ("spec",),
        "adopt": ("spec", "process"),
        "clean": ("spec",),
    },
    "onvm_stats_exporters": {
        "__enter__": (),
        "__exit__": ("kind", "error", "traceback"),
        "export": ("snapshot",),
    },
}
"""Methods of the class that is the target, by hook, with their arguments."""


def fault_of(hook: str, target: Any) -> str:
    """The fault of an offer's target, as "expected …"; "" if there is none."""
    if hook in _CLASSES:
        return _class_fault(target, _CLASSES[hook])
    check = _OTHERS.get(hook)
    return "" if check is None else check(target)


def offer_fault(name: object, summary: object) -> str:
    """The fault of an offer's texts, as "expected …"; "" if there is none."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"expected a name of lower-case letters, digits, - and _, got {name!r}"
    if not isinstance(summary, str) or not summary or "\n" in summary:
        return f"expected a summary of one line for {name!r}, got {summary!r}"
    return ""


def _class_fault(target: Any, methods: Mapping[str, tuple[str, ...]]) -> str:
    wanted = ", ".join(f"{name}({', '.join(names)})" for name, names in methods.items())
    if not isinstance(target, type):
        return f"expected a class with {wanted}, got {target!r}"
    for name, arguments in methods.items():
        method = getattr(target, name, None)
        if not callable(method):
            return f"expected a class with {wanted}; {target.__name__} has no {name}"
        if not _takes(method, len(arguments) + 1):
            return f"expected {target.__name__}.{name} to take ({', '.join(arguments)})"
    return ""


def _takes(method: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(method).bind(*(None for _ in range(count)))
    except TypeError:
        return False
    except ValueError:  # a method of C code may have no signature
        return True
    return True


def _command_fault(target: Any) -> str:
    return "" if callable(target) else f"expected a function or a typer.Typer, got {target!r}"


def _port_kind_fault(target: Any) -> str:
    from onvm_core.plugins.port_kind import PortKind  # needs msgspec, which lists of offers do not

    if not isinstance(target, PortKind):
        return f"expected an onvm_core.plugins.port_kind.PortKind, got {target!r}"
    return target.fault()


_OTHERS: Mapping[str, Callable[[Any], str]] = {
    "onvm_cli_commands": _command_fault,
    "onvm_port_kinds": _port_kind_fault,
}
