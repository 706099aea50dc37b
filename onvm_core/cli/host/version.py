"""``onvm version``."""

from __future__ import annotations

import platform

import importlib_metadata

from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions

__all__ = ["version"]


@with_option_groups
def version(*, output: OutputOptions) -> None:
    """Print the versions of onvm, DPDK and Python.

    Examples:
        onvm version -o json
    """
    from onvm_core.doctor import dpdk_version

    versions = {
        "onvm": importlib_metadata.version("onvm"),
        "dpdk": dpdk_version(),
        "python": platform.python_version(),
    }
    output.show(versions, lambda: "\n".join(f"{name} {value}" for name, value in versions.items()))
