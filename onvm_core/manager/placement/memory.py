"""The memory that NFs need with their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onvm_sdk.manifest import Manifest, read_config

__all__ = ["needs_more", "sized_by"]

GROWTH_MAX = 1.25
"""An NF host may need so much more than it was started with before a new one takes its place:
manifests count full tables, and twice where a change makes other tables."""


def sized_by(manifest: Manifest, config: Path | Mapping[str, Any] | None) -> Manifest:
    """Return a manifest whose `memory_mib` is what its NF needs with a configuration.

    Args:
        config: a file, the content of one, or None for the defaults.
    """
    if not manifest.memory_bytes:
        return manifest
    from onvm_sdk.memory import sized  # takes a millisecond, and most manifests need none

    if isinstance(config, Path) and not config.is_file():
        config = None
    return sized(manifest, read_config(manifest, config))


def needs_more(manifest: Manifest, after: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Return whether a checked configuration needs more memory than an NF host has that was started
    with another one.
    """
    if not manifest.memory_bytes:
        return False
    from onvm_sdk.memory import needed_mib

    return needed_mib(manifest, after) > GROWTH_MAX * needed_mib(manifest, before)
