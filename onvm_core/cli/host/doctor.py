"""``onvm doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.doctor import Health, InterfaceReport, examine, examine_interfaces

__all__ = ["doctor"]


def doctor(
    interfaces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INTERFACE]…",
            help="Network interfaces to check for ports, instead of the host.",
            show_default=False,
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
    rows = [{"fact": fact, **_values(reports, fact)} for fact in reports[0].facts]
    print_table(rows, {"fact": "", **{report.name: report.name for report in reports}})
    for report in reports:
        print(f"\n{report.name}:" if report.findings else f"\n{report.name}: nothing to fix")
        for one in report.findings:
            print(f"  {one.severity.value} ({', '.join(one.ports)}): {one.text}")
            if one.fix:
                print(f"    {one.fix}")


def _values(reports: list[InterfaceReport], fact: str) -> dict[str, str]:
    return {report.name: report.facts[fact] for report in reports}
