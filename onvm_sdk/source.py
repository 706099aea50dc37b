"""NFs of one file: ``./my.py:Class``, without a package.

The manifest of such an NF is the attribute ``manifest`` of its class, a dict of literals, so that
onvm reads it without running the file. An NF without one may read, rewrite, drop and originate
packets, and hold a few: its author tries it out. Its service is the name of the class in lower
case.
"""

from __future__ import annotations

import os

from onvm_sdk.errors import ManifestError, PluginError

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, ModuleType
    from typing import Any

    from onvm_sdk.manifest import Manifest

__all__ = ["class_manifest", "is_source", "load_module", "source_manifest", "source_name"]

_TRIAL = {"permissions": ["read", "rewrite", "drop", "originate"], "held_packets": 256}
"""The manifest of an NF of one file that has none, beside its name."""


def is_source(name: str) -> bool:
    """True if `name` is the file of an NF and a class in it, as in ``my.py:Class``."""
    return name.rpartition(":")[0].endswith(".py")


def source_name(name: str) -> str:
    """Return ``FILE:Class`` with the whole path of the file.

    Raises:
        PluginError: there is no such file, or its path does not fit a list with commas.
    """
    file, _, kind = name.rpartition(":")
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise PluginError("expected a file that exists", field="nf", value=name)
    if "," in path or "=" in path:
        raise PluginError("expected a path without ',' and '='", field="nf", value=name)
    return f"{path}:{kind}"


def source_manifest(name: str) -> Manifest:
    """Read the manifest of an NF of one file, without running it.

    Raises:
        PluginError: the file has a mistake in its syntax, or no such class.
        ManifestError: its manifest has a mistake, or is no dict of literals.
    """
    import ast

    file, _, kind = name.rpartition(":")
    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read(), file)
    except (OSError, SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise PluginError(f"expected Python: {error}", file=f"{file}{line}") from None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if kind not in classes:
        from onvm_sdk.spelling import one_of

        known = one_of(classes, kind) if classes else "it has none"
        raise PluginError(f"expected a class of the file: {known}", file=file, value=kind)
    said: Mapping[str, Any] = {}
    for node in classes[kind].body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == "manifest" for target in targets):
            try:
                said = ast.literal_eval(node.value)
            except ValueError:
                raise ManifestError(
                    "expected a dict of literals, which is read without running the file",
                    file=f"{file}:{node.lineno}",
                    field="manifest",
                ) from None
    return class_manifest(kind, said, name)


def class_manifest(kind: str, said: Mapping[str, Any], name: str) -> Manifest:
    """Return the manifest of a class with the attribute ``manifest``.

    Args:
        kind: name of the class.
        said: the attribute; empty: it has none.
        name: the NF, for messages.

    Raises:
        ManifestError: it has a mistake.
    """
    from onvm_sdk.manifest import NF_NAME_LETTERS, parse_manifest

    # A class that is not installed has made no promise: it may do all that is usual.
    usual: dict[str, Any] = {
        "schema": 1,
        "name": kind.lower().lstrip("_")[:NF_NAME_LETTERS],
        "sdk": ">=0",
        "permissions": ["read", "rewrite", "drop"],
    }
    trial = _TRIAL if is_source(name) and not said else {}
    return parse_manifest({**usual, **trial, **said}, name)


def load_module(file: str) -> ModuleType:
    """Run the file of an NF as a module, with its folder on the path, as Python does.

    It is compiled each time: Python's cache knows a file by the second of its last change and its
    size, and an author changes one letter and tries again within a second.
    """
    import importlib.util
    import sys
    from importlib.machinery import SourceFileLoader

    class UncachedLoader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType:
            path = self.get_filename(fullname)
            code: CodeType = self.source_to_code(self.get_data(path), path)
            return code

    name = os.path.basename(file)[: -len(".py")]
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == file:
        return sys.modules[name]
    loader = UncachedLoader(name, file)
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None or spec.loader is None:
        raise PluginError("expected a file of Python", file=file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(file))
    spec.loader.exec_module(module)
    return module
