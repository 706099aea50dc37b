"""Errors of a user have one form: ``FILE: FIELD: 'VALUE': expected …``.

`ConfigError` and the classes below it put file, field and value in front of a text. This test reads
the source and checks each such text: it must begin with "expected ". Texts that are variables come
from another error or from a check, and are skipped.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("onvm_core", "onvm_sdk", "plugins")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"tests", "build"} & set(path.relative_to(ROOT).parts):
                yield path, ast.parse(path.read_text(encoding="utf-8"))


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def error_classes() -> set[str]:
    """ConfigError and all classes below it."""
    bases = {
        node.name: {name_of(base) for base in node.bases}
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"ConfigError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


def beginnings(node: ast.expr) -> Iterator[str]:
    """The constant texts with which a text may begin; "{x}" where it begins with a value."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield from beginnings(node.values[0])
    elif isinstance(node, ast.FormattedValue):
        yield f"{{{ast.unparse(node.value)}}}"
    elif isinstance(node, ast.BinOp):
        yield from beginnings(node.left)
    elif isinstance(node, ast.IfExp):
        yield from beginnings(node.body)
        yield from beginnings(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from beginnings(value)


def texts() -> Iterator[tuple[str, str]]:
    """Each place that makes such an error, and what its text begins with."""
    classes = error_classes()
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) in classes and node.args:
                for text in beginnings(node.args[0]):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_classes_are_found() -> None:
    assert {"ConfigError", "ManifestError", "PluginError", "NoManagerError"} <= error_classes()


def test_errors_of_a_user_say_what_was_expected() -> None:
    found = list(texts())
    assert len(found) > 150
    assert [f"{place}: {text}" for place, text in found if not text.startswith("expected ")] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('E("expected a")', ["expected a"]),
        ('E(f"expected {a}")', ["expected "]),
        ('E(f"{a} expected")', ["{a}"]),
        ('E("no" if a else "expected b")', ["no", "expected b"]),
        ('E(error.text or "no")', ["no"]),
    ],
)
def test_beginnings(code: str, expected: list[str]) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert list(beginnings(call.args[0])) == expected
