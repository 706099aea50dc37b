"""``onvm doctor``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from onvm_core.cli import names
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import table_of, text
from onvm_core.doctor import Finding, Health, InterfaceReport, examine, examine_interfaces

__all__ = ["doctor"]

_COLUMNS = 80


@with_option_groups
def doctor(
    interfaces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INTERFACE",
            help="Network interfaces to check for ports.",
            show_default="the host",
            autocompletion=names.interfaces,
        ),
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """Show what this host can do, and how to fix what it cannot.

    Whatever is missing, `onvm run` works on pcap, null and generator ports. With names of
    interfaces: their facts, and what goes wrong for af_packet and af_xdp ports on them.

    Examples:
        onvm doctor
        onvm doctor eth0 eth1
    """
    if interfaces:
        reports = examine_interfaces(interfaces)
        output.show(
            reports,
            lambda: _print_interfaces(reports),
            lambda: [f"interface/{one.name}" for one in reports],
        )
        return
    findings = examine()
    output.show(findings, lambda: _shown(findings))


def _shown(findings: Sequence[Finding]) -> RenderableType:
    rows = [
        {
            "health": finding.health.value,
            "subject": finding.subject,
            "found": finding.found,
            "purpose": finding.purpose,
        }
        for finding in findings
    ]
    columns = {
        "health": text(""),
        "subject": text("what", folds=True),
        "found": text("found", folds=True, least=24),
        "purpose": text("for", folds=True),
    }
    parts: list[RenderableType] = [table_of("", rows, columns)]
    for heading, health in (("To fix:", Health.LACK), ("If you want it:", Health.OK)):
        fixes = [(one.subject, one.fix) for one in findings if one.health is health and one.fix]
        if fixes:
            parts += ["", heading]
        for subject, fix in fixes:  # in one line, whatever its length: it is to be copied
            parts.append(Text(f"  # {subject}\n  {fix}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _print_interfaces(reports: Sequence[InterfaceReport]) -> None:
    for number, report in enumerate(reports):
        print(*([""] if number else []), report.name, sep="\n")
        for fact, value in report.facts.items():
            if value:
                _print_wrapped(f"  {fact:11} ", value)
        if not report.findings:
            print("  nothing to fix")
        for one in report.findings:
            _print_wrapped(f"  {one.severity.value} ({', '.join(one.ports)}): ", one.text, indent=4)
            if one.fix:
                print(f"    {one.fix}")  # in one line, whatever its length: it is to be copied


def _print_wrapped(start: str, text: str, indent: int | None = None) -> None:
    following = " " * (len(start) if indent is None else indent)
    print(textwrap.fill(text, _COLUMNS, initial_indent=start, subsequent_indent=following))
