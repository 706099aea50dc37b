"""``onvm version``."""

from __future__ import annotations

import platform

import importlib_metadata

from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json

__all__ = ["version"]


def version(
    as_json: JsonOption = False,
) -> None:
    """Print the versions of onvm, DPDK and Python."""
    from onvm_core.doctor import dpdk_version

    versions = {
        "onvm": importlib_metadata.version("onvm"),
        "dpdk": dpdk_version(),
        "python": platform.python_version(),
    }
    if as_json:
        print_json(versions)
    else:
        print("\n".join(f"{name} {value}" for name, value in versions.items()))
