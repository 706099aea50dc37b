"""``onvm doctor``."""

from __future__ import annotations

from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.doctor import Health, examine

__all__ = ["doctor"]


def doctor(
    as_json: JsonOption = False,
) -> None:
    """Show what this host can do, and how to fix what it cannot.

    Whatever is missing, `onvm run` works on pcap, null and generator ports.
    """
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
