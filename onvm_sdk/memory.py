"""The memory that an NF needs: what its manifest says, and what its configuration adds.

``memory_bytes`` of a manifest is an expression over the keys of its configuration::

    memory_bytes = "max_connections * 180 + (max_per_source > 0) * max_connections * 130"

See `onvm_sdk.expressions`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from onvm_sdk.errors import ConfigError
from onvm_sdk.expressions import evaluate
from onvm_sdk.manifest import Manifest

__all__ = ["check_memory", "needed_mib", "sized"]


def needed_mib(manifest: Manifest, config: Mapping[str, Any]) -> int:
    """Return the memory that an NF needs with a configuration.

    Args:
        config: checked against the manifest, with all defaults.

    Raises:
        ManifestError: the expression of the manifest is wrong.
    """
    text = manifest.memory_bytes
    if not text:
        return manifest.memory_mib
    return manifest.memory_mib + -(-int(evaluate(text, config, "memory_bytes")) >> 20)


def sized(manifest: Manifest, config: Mapping[str, Any]) -> Manifest:
    """Return a manifest whose `memory_mib` is what a configuration needs."""
    if not manifest.memory_bytes:
        return manifest
    return manifest.replace(memory_mib=needed_mib(manifest, config), memory_bytes="")


def check_memory(
    manifest: Manifest, config: Mapping[str, Any], available_mib: int, file: str | None = None
) -> None:
    """Refuse a configuration that needs more memory than there is.

    Raises:
        ConfigError: names the key that adds most.
    """
    needed = needed_mib(manifest, config)
    if needed <= available_mib or not manifest.memory_bytes:
        return
    names = [
        node.id
        for node in ast.walk(ast.parse(manifest.memory_bytes.strip(), mode="eval"))
        if isinstance(node, ast.Name) and isinstance(config.get(node.id), int)
    ]
    field = max(names, key=lambda name: int(config[name]), default="memory_bytes")
    raise ConfigError(
        f"expected less: {manifest.name} would need {needed} MiB of memory, this host has "
        f"{available_mib}",
        file=file,
        field=field,
        value=config.get(field),
    )
