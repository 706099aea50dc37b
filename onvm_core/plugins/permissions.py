"""Permissions of a manifest in words."""

from __future__ import annotations

__all__ = ["ISOLATED", "MEANINGS"]

MEANINGS = {
    "read": "read packets",
    "rewrite": "change packets",
    "drop": "drop packets",
    "originate": "make packets of its own",
    "network": "use the network of this host",
    "files": "read and write the files of the user who runs it",
}
"""Each permission, and what an NF with it may do."""
ISOLATED = ("network", "files")
"""Those that launchers enforce which isolate an NF host; all others the manager enforces."""
