"""The man page onvm(1), made from the help of all commands when a wheel is built.

    python -P onvm_core/cli/manual.py VERSION FILE DEPFILE

DEPFILE names the modules that it was made from, for ninja.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":  # from the source tree, before anything is installed
    sys.path.insert(0, str(Path(__file__).parents[2]))

import typer

from onvm_core.cli.app import build_app
from onvm_core.cli.help import Page, Section, pages
from onvm_core.plugins.builtins import onvm_cli_commands

__all__ = ["man_page"]

ENVIRONMENT = {
    "ONVM_RUNTIME_DIR": "Folder for the sockets and logs of managers.",
    "COLUMNS": "Width of tables; without it that of the terminal.",
    "NO_COLOR": "If it is set, nothing is coloured.",
}
FILES = {"onvm.toml": "Ports, NFs and chains of a manager."}
STATUSES = {
    "0": "Done.",
    "1": "It has failed; the last line says why.",
    "2": "A mistake of the user, in one line: where, the value, and what is expected.",
    "130": "Interrupted.",
}


def man_page(version: str) -> str:
    """The page in roff, with macros of man(7)."""
    app = typer.main.get_command(build_app(onvm_cli_commands(), None))
    root, *others = pages(app)
    lines = [
        f'.TH ONVM 1 "" "onvm {_escaped(version)}" "User commands"',
        ".SH NAME",
        f"onvm \\- {_escaped(root.paragraphs[0])}",
        ".SH SYNOPSIS",
        f".B onvm\n{_escaped(root.usage)}",
        ".SH OPTIONS",
        *_entries(root.sections[0]),
        ".SH COMMANDS",
    ]
    for page in others:
        lines += _command(page)
    for heading, entries in (
        ("EXIT STATUS", STATUSES),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ):
        lines.append(f".SH {heading}")
        for label, text in entries.items():
            lines += [".TP", f".B {_escaped(label)}", _escaped(text)]
    return "\n".join(lines) + "\n"


def _command(page: Page) -> Iterator[str]:
    yield f'.SS "{_escaped(page.name)} {_escaped(page.usage)}"'
    for paragraph in page.paragraphs:
        yield from (".PP", _escaped(paragraph))
    for section in page.sections:
        if not section.heading.endswith("ommands"):  # each has a page of its own
            yield from _entries(section)
    if page.examples:
        yield from (".PP", "Examples:", ".PP", ".nf", ".RS")
        yield from map(_escaped, page.examples)
        yield from (".RE", ".fi")


def _entries(section: Section) -> Iterator[str]:
    for entry in section.entries:
        yield from (".TP", f".B {_escaped(entry.label)}", _escaped(entry.text))


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("…", "...")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(man_page(sys.argv[1]), encoding="utf-8")
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    used = " ".join(file for file in files if file and "/onvm_" in file)
    Path(sys.argv[3]).write_text(f"{sys.argv[2]}: {used}\n", encoding="utf-8")
