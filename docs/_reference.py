# SPDX-License-Identifier: Apache-2.0
"""Pages of the reference that are made from the code, as Markdown.

A key without a docstring or a command without help is an error, so a page cannot be incomplete.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import typer
from sphinx.pycode import ModuleAnalyzer
from typer.testing import CliRunner

from onvm_core.cli.app import build_app
from onvm_core.export.prometheus import HELP
from onvm_core.manager.chains.classifier import MatchConfig
from onvm_core.manager.config import chains, gateway, onvm_toml, sections
from onvm_core.manager.startup.environment import DataplaneConfig
from onvm_core.plugins import CliCommand, load_plugins
from onvm_sdk.manifest import ConfigKey, Manifest

_COLUMNS = 80
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {6,}.*)*)", re.MULTILINE)
_TABLES: tuple[tuple[str, type], ...] = (
    ("[manager]", onvm_toml.ManagerConfig),
    ("[dataplane]", DataplaneConfig),
    ("[ports.NAME]", chains.PortConfig),
    ("[nfs.NAME]", onvm_toml.NfConfig),
    ("[[fused]]", onvm_toml.FusedConfig),
    ("[chains.NAME]", chains.ChainConfig),
    ("match of a chain", MatchConfig),
    ("[gateway]", gateway.Gateway),
    ("[scale.SERVICE]", sections.ScaleConfig),
    ("[exporters.NAME]", sections.ExporterConfig),
    ("[faults]", sections.FaultsConfig),
)


def commands() -> str:
    """The help of each command, as the terminal shows it."""
    offers = load_plugins().offers("onvm_cli_commands").values()
    app = build_app([offer for offer in offers if isinstance(offer, CliCommand)], None)
    parts = []
    for path in sorted(_paths(typer.main.get_command(app))):
        environment = {"COLUMNS": str(_COLUMNS), "TERMINAL_WIDTH": str(_COLUMNS), "NO_COLOR": "1"}
        done = CliRunner().invoke(app, [*path, "--help"], env=environment, prog_name="onvm")
        if done.exit_code != 0:
            raise RuntimeError(f"onvm {' '.join(path)} --help: {done.output}")
        parts.append(f"## onvm {' '.join(path)}\n\n```text\n{done.output.strip()}\n```\n")
    return "\n".join(parts)


def _paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _paths(inner, (*path, name))


def settings() -> str:
    """The tables of ``onvm.toml``."""
    parts = []
    for title, struct in _TABLES:
        texts = _texts(struct)
        rows = [
            (field.encode_name, _type(field.type), _default(field), texts[field.name])
            for field in msgspec.structs.fields(struct)
        ]
        parts.append(f"## `{title}`\n\n{_table(('key', 'value', 'default', 'meaning'), rows)}")
    return "\n".join(parts)


def manifest() -> str:
    """The keys of ``onvm-nf.toml``, and those of a key of its configuration."""
    parts = []
    for title, record in (("The file", Manifest), ("`[config.KEY]`", ConfigKey)):
        texts, rows = _texts(record), []
        for name, field in record._FIELDS.items():
            kind = ", ".join(f"`{choice}`" for choice in field.choices) or field.kind
            default = "required" if field.is_required else _value(field.default)
            rows.append((name, kind, default, texts[name]))
        parts.append(f"## {title}\n\n{_table(('key', 'value', 'default', 'meaning'), rows)}")
    return "\n".join(parts)


def metrics() -> str:
    """The metrics of the exporter ``prometheus``."""
    return _table(("metric", "meaning"), [(f"onvm_{name}", text) for name, text in HELP.items()])


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "manifest": manifest,
    "metrics": metrics,
}
"""By the names in the pages."""


def _texts(kind: type) -> dict[str, str]:
    """What the docstrings say of each attribute of a class."""
    source = ModuleAnalyzer.for_module(kind.__module__)
    source.analyze()
    texts = {
        name: " ".join(" ".join(lines).split())
        for (place, name), lines in source.attr_docs.items()
        if place == kind.__qualname__
    }
    for name, text in _ATTRIBUTE.findall(inspect.getdoc(kind) or ""):
        texts.setdefault(name, " ".join(text.split()))
    missing = [name for name in _keys(kind) if name not in texts]
    if missing:
        raise RuntimeError(f"{kind.__module__}.{kind.__qualname__} does not say: {missing}")
    return texts


def _keys(kind: type) -> Iterator[str]:
    if issubclass(kind, msgspec.Struct):
        yield from (field.name for field in msgspec.structs.fields(kind))
    else:
        yield from kind._FIELDS


_WORDS: dict[object, str] = {
    Any: "any",
    str: "text",
    int: "integer",
    float: "number",
    bool: "`true`, `false`",
    dict: "table",
}


def _type(kind: Any) -> str:
    """Words for an annotation."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        inner, *metas = arguments
        return " ".join([_type(inner), *(_bounds(meta) for meta in metas)]).strip()
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin in (list, tuple):
        kind = _type(arguments[0])
        return f"list of {kind.replace('integer', 'integers', 1)}"
    is_table = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return _WORDS[dict if is_table else origin or kind]


def _bounds(meta: msgspec.Meta) -> str:
    low = meta.ge if meta.ge is not None else meta.min_length
    high = meta.le if meta.le is not None else meta.max_length
    if meta.gt is not None:
        return f"above {meta.gt:g}, at most {high:g}"
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    if low is not None:
        return f"of at least {_number(low)}"
    return f"of at most {_number(high)}" if high is not None else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: Any) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return _value(field.default_factory())
    return "required" if field.default is msgspec.NODEFAULT else _value(field.default)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in (None, "", [], {}, ()):
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value}`"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads)]
    for first, *others in rows:
        lines.append((f"`{first}`", *(text.replace("|", "\\|") for text in others)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
