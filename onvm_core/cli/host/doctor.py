"""``onvm doctor``."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.doctor import Health, examine, examine_interfaces

__all__ = ["doctor"]

_COLUMNS = 80


def doctor(
    interfaces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INTERFACE",
            help="Network interfaces to check for ports.",
            show_default="the host",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what this host can do, and how to fix what it cannot.

    Whatever is missing, `onvm run` works on pcap, null and generator ports. With names of
    interfaces: their facts, and what goes wrong for af_packet and af_xdp ports on them.
    """
    if interfaces:
        _interfaces(interfaces, as_json)
        return
    findings = examine()
    if as_json:
        print_json(findings)
        return
    print_table(
        [
            {
                "health": finding.health.value,
                "subject": finding.subject,
                "found": finding.found,
                "purpose": finding.purpose,
            }
            for finding in findings
        ],
        {"health": "", "subject": "What", "found": "Found", "purpose": "For"},
    )
    for heading, health in (("To fix:", Health.LACK), ("If you want it:", Health.OK)):
        fixes = [(one.subject, one.fix) for one in findings if one.health is health and one.fix]
        if fixes:
            print(f"\n{heading}")
        for subject, fix in fixes:
            print(f"  # {subject}\n  {fix}")


def _interfaces(names: list[str], as_json: bool) -> None:
    reports = examine_interfaces(names)
    if as_json:
        print_json(reports)
        return
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
