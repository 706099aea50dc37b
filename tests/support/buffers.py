"""Buffers that have come back: all but those that NFs hold to make packets in."""

from __future__ import annotations

from typing import Any

from onvm_sdk.manifest import LOANED_USUAL

ORIGINATING = {"nat", "translator"}
"""Services of the cluster's tests whose NFs make packets, under the names that tests give them."""


def are_back(report: dict[str, Any]) -> bool:
    """True if a manager's report, as JSON, has all buffers in the pool but loans."""
    loans = LOANED_USUAL * sum(nf["service"] in ORIGINATING for nf in report["nfs"])
    buffers = report["buffers"]
    gone = int(buffers["total"] - buffers["free"])
    return gone == buffers["with_nfs"] and gone <= loans
