"""The help of a command: one description, printed by ``--help`` and by the man page.

The library that reads command lines draws boxes, and types of Python in them. This is the page that
people know from other commands: usage, what it does, arguments, options, examples.
"""

from __future__ import annotations

import enum
import inspect
import os
import shutil
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

__all__ = ["Entry", "Page", "Section", "page_of", "pages", "use_pages"]

WIDTH_MAX = 100
LABEL_MAX = 26
"""Letters of the longest label that has its text beside it."""
INDENT = "  "
EXAMPLES = "Examples:"


@dataclass(frozen=True, slots=True)
class Entry:
    """An argument, option or command, and what it is for."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """Entries under a heading."""

    heading: str
    entries: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """The help of one command.

    Attributes:
        name: the whole command, as in ``onvm nf list``.
        usage: what follows the name.
        paragraphs: what it does; the first one is one line.
        examples: lines as one types them.
    """

    name: str
    usage: str
    paragraphs: list[str]
    sections: list[Section]
    examples: list[str]

    def text(self, width: int, *, is_bold: bool = False) -> str:
        """The page in lines of at most `width` letters."""
        bold = "\033[1m{}\033[0m" if is_bold else "{}"
        first = f"{bold.format('Usage:')} {self.name} "
        offset = " " * len(f"Usage: {self.name} ")
        usage = textwrap.fill(self.usage, width - len(offset), break_on_hyphens=False)
        lines = [first + usage.replace("\n", f"\n{offset}")]
        for paragraph in self.paragraphs:
            lines += ["", textwrap.fill(paragraph, width, break_on_hyphens=False)]
        for section in self.sections:
            lines += ["", bold.format(f"{section.heading}:"), *_entries(section.entries, width)]
        if self.examples:
            lines += ["", bold.format(EXAMPLES)]
            lines += [f"{INDENT}{line}" for line in self.examples]
        return "\n".join(lines) + "\n"


def use_pages(command: Any) -> Any:
    """Let a command, and all commands below it, print such pages; return it."""
    command.format_help = types.MethodType(_format_help, command)
    for inner in getattr(command, "commands", {}).values():
        use_pages(inner)
    return command


def pages(command: Any, name: str = "onvm", parent: Any = None) -> Iterator[Page]:
    """The pages of a command and of all commands below it."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    yield page_of(command, context)
    for inner_name, inner in getattr(command, "commands", {}).items():
        yield from pages(inner, inner_name, context)


def page_of(command: Any, context: Any) -> Page:
    """The help of a command.

    Args:
        command: a command of click, or of the copy of click in typer.
        context: its context, which knows its name.
    """
    paragraphs, examples = _texts(command.help or "")
    sections: dict[str, list[Entry]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        is_option = parameter.param_type_name == "option"
        panel = getattr(parameter, "rich_help_panel", None)
        heading = (f"{panel} options" if panel else "Options") if is_option else "Arguments"
        label = _option(parameter) if is_option else _argument(parameter)
        sections.setdefault(heading, []).append(Entry(label, _explained(parameter, context)))
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            panel = getattr(inner, "rich_help_panel", None)
            is_named = isinstance(panel, str) and panel != "Commands"
            heading = f"{panel} commands" if is_named else "Commands"
            summary = _texts(inner.help or inner.short_help or "")[0][:1]
            sections.setdefault(heading, []).append(Entry(name, "".join(summary)))
    return Page(
        context.command_path,
        _usage(command, context),
        paragraphs,
        [Section(heading, entries) for heading, entries in sections.items() if entries],
        examples,
    )


def _format_help(command: Any, context: Any, formatter: Any) -> None:
    width = min(shutil.get_terminal_size().columns, WIDTH_MAX)
    is_bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    formatter.write(page_of(command, context).text(width, is_bold=is_bold))


def _texts(help_text: str) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring, and its examples."""
    told, _, examples = inspect.cleandoc(help_text).partition(f"\n{EXAMPLES}\n")
    paragraphs = [" ".join(part.split()) for part in told.split("\n\n") if part.strip()]
    lines = textwrap.dedent(examples).strip().splitlines()
    return [paragraph.replace("`", "") for paragraph in paragraphs], lines


def _usage(command: Any, context: Any) -> str:
    parts = ["[OPTIONS]"]
    if hasattr(command, "commands"):
        return " ".join([*parts, "COMMAND", "[ARGS]..."])
    for parameter in command.get_params(context):
        if parameter.param_type_name == "option" and parameter.required:
            parts.append(f"{parameter.opts[0]} {parameter.metavar}")
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            name = _argument(parameter)
            parts.append(name if parameter.required else f"[{name}]")
    return " ".join(parts)


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return name if parameter.nargs == 1 or name.endswith("...") else f"{name}..."


def _option(parameter: Any) -> str:
    names = sorted(parameter.opts, key=lambda name: name.startswith("--"))
    label = ", ".join([*names, *parameter.secondary_opts])
    if parameter.is_flag or parameter.count:
        return label
    if parameter.metavar:
        return f"{label} {parameter.metavar}"
    return f"{label} {'|'.join(_choices(parameter)) or 'VALUE'}"


def _choices(parameter: Any) -> list[str]:
    """The values that it may have; newer versions of typer know the annotation only."""
    choices = getattr(getattr(parameter, "type", None), "choices", None)
    if choices is None:
        annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
        is_enum = isinstance(annotation, type) and issubclass(annotation, enum.Enum)
        choices = annotation if is_enum else get_args(annotation)
    return [str(getattr(choice, "value", choice)) for choice in choices or ()]


def _explained(parameter: Any, context: Any) -> str:
    """Its help, with its range, its default and its environment variable."""
    notes = []
    ranged = getattr(parameter, "type", parameter)  # newer versions of typer have no type
    least, most = getattr(ranged, "min", None), getattr(ranged, "max", None)
    if least is not None and most is not None:
        notes.append(f"{least} to {most}")
    elif least not in (None, 0):
        notes.append(f"at least {least}")
    if getattr(parameter, "envvar", None):
        notes.append(f"environment: {parameter.envvar}")
    if parameter.required:
        notes.append("required")
    else:
        default = _default(parameter, context)
        if default:
            notes.append(f"default: {default}")
    text = parameter.help or ""
    return f"{text} [{'; '.join(notes)}]" if notes else text


def _default(parameter: Any, context: Any) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    value = parameter.get_default(context, call=False)
    if getattr(parameter, "is_flag", False):
        on = parameter.opts[0].removeprefix("--")
        off = parameter.secondary_opts[0].removeprefix("--") if parameter.secondary_opts else ""
        return (on if value else off) if parameter.secondary_opts else ""
    return "" if value is None or value == "" else str(getattr(value, "value", value))


def _entries(entries: Sequence[Entry], width: int) -> Iterator[str]:
    longest = max(len(entry.label) for entry in entries)
    column = min(longest, LABEL_MAX) + 2 * len(INDENT)
    for entry in entries:
        label = f"{INDENT}{entry.label}"
        lines = textwrap.wrap(entry.text, width - column, break_on_hyphens=False) or [""]
        if len(label) > column - len(INDENT):
            yield label
            label = ""
        yield f"{label:{column}}{lines[0]}".rstrip()
        for line in lines[1:]:
            yield " " * column + line
