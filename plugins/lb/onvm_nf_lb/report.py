# SPDX-License-Identifier: Apache-2.0
"""The state of VIPs and backends, for people and programs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from onvm_nf_lb.kernel import Plan, Usage
from onvm_nf_lb.pool import Pool

__all__ = ["make_report", "text_lines", "write_report"]

_SUMS = ("connections", "opened", "packets_in", "packets_out", "bytes_in", "bytes_out")


def make_report(
    instance: str, plan: Plan, pool: Pool, usages: Sequence[Usage], now_s: float
) -> dict[str, Any]:
    """Describe all VIPs with their backends.

    Args:
        usages: in the order of `plan.backends`.
    """
    rows = pool.rows(now_s)
    for (vip, backend), usage in zip(plan.backends, usages, strict=True):
        counts = usage.current, usage.opened, *usage.packets, *usage.size
        rows[vip][backend] |= dict(zip(_SUMS, counts, strict=True))
    return {
        "instance": instance,
        "time": time.time(),
        "vips": [
            {
                "vip": vip.name,
                **{key: sum(row[key] for row in listed) for key in _SUMS},
                "backends": listed,
            }
            for vip, listed in zip(plan.config.vips, rows, strict=True)
        ],
    }


def text_lines(report: dict[str, Any]) -> list[str]:
    """Give a line for each VIP and each backend."""
    return [line for vip in report["vips"] for line in _vip_lines(vip)]


def _vip_lines(vip: dict[str, Any]) -> Iterator[str]:
    yield f"{vip['vip']}: {_counts(vip)}"
    for row in vip["backends"]:
        state = f"{row['state']} for {row['for_s']:g} s ({row['why']})"
        yield f"{vip['vip']}: {row['backend']}: {state}, {_counts(row)}"


def _counts(row: dict[str, Any]) -> str:
    return (
        f"{row['connections']} connections, {row['opened']} opened, "
        f"{row['packets_in']}/{row['packets_out']} packets, "
        f"{row['bytes_in']}/{row['bytes_out']} bytes"
    )


def write_report(path: str, report: dict[str, Any]) -> None:
    """Write a report as JSON; readers find the old one or the new one, never half of it."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.new")
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    beside.replace(target)
