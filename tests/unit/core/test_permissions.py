"""Permissions in words, and their changes at an upgrade."""

from __future__ import annotations

from onvm_core.cli.nf.install import _rights
from onvm_core.plugins import NfPackage
from onvm_core.plugins.permissions import MEANINGS, permission_changes
from onvm_sdk import manifest
from onvm_sdk.manifest import Manifest


def package(*permissions: str, memory_mib: int = 256) -> NfPackage:
    made = Manifest(
        schema=1, name="x", sdk=">=0", permissions=list(permissions), memory_mib=memory_mib
    )
    return NfPackage("x", "onvm-nf-x", "1", "x:X", "x", made)


def test_every_permission_has_words() -> None:
    assert tuple(MEANINGS) == manifest._PERMISSIONS


def test_changes_are_a_diff() -> None:
    assert permission_changes(["read", "drop"], ["read", "rewrite"]) == [
        "+ rewrite: change packets",
        "- drop: drop packets",
    ]


def test_install_shows_what_an_nf_may_do_and_an_upgrade_what_differs() -> None:
    first = package("read", "drop")
    assert _rights(first, None) == ["it may read packets, drop packets", "needs 1 cores, 256 MiB"]
    assert _rights(first, first) == []
    assert _rights(package("read", "drop", "originate", memory_mib=512), first) == [
        "+ originate: make packets of its own",
        "- needs 1 cores, 256 MiB",
        "+ needs 1 cores, 512 MiB",
    ]
