"""Permissions of a manifest in words."""

from __future__ import annotations

__all__ = ["MEANINGS"]

MEANINGS = {
    "read": "read packets",
    "rewrite": "change packets",
    "drop": "drop packets",
    "originate": "make packets of its own",
}
"""Each permission, and what an NF with it may do."""
