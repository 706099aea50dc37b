"""History and rollback: the same for chains and services."""

from __future__ import annotations

import time

import msgspec

from onvm_core.cli.output import print_json, print_table
from onvm_core.cluster.tree.definitions import Revision

__all__ = ["print_history"]


def print_history(revisions: list[Revision], as_json: bool) -> None:
    """Show revisions, newest last."""
    if as_json:
        print_json(revisions)
        return
    rows = [
        {
            "revision": one.revision,
            "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time)),
            "by": one.by,
            "what": one.what,
            "definition": ""
            if one.definition is None
            else msgspec.json.encode(one.definition).decode(),
        }
        for one in revisions
    ]
    print_table(
        rows,
        {"revision": "Rev", "time": "Time", "by": "By", "what": "What", "definition": "Definition"},
    )
