"""Permissions of a manifest in words, and the differences between two manifests."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MEANINGS", "permission_changes"]

MEANINGS = {
    "read": "read packets",
    "rewrite": "change packets",
    "drop": "drop packets",
    "originate": "make packets of its own",
}
"""Each permission, and what an NF with it may do."""


def permission_changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """A line for each permission that `after` has in addition, or no longer: "+ drop: …"."""
    return [
        f"{sign} {name}: {meaning}"
        for name, meaning in MEANINGS.items()
        for sign, here, there in (("+", after, before), ("-", before, after))
        if name in here and name not in there
    ]
