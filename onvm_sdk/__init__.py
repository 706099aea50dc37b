"""The public interface for NF authors.

Each name is imported when it is first used. So ``import onvm_sdk`` is quick, and an NF without
columns never loads NumPy.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes milliseconds
if TYPE_CHECKING:
    from onvm_sdk.burst import Burst
    from onvm_sdk.errors import ConfigError, ManifestError, OnvmError, StaleViewError
    from onvm_sdk.five_tuple import FiveTuple
    from onvm_sdk.kernel import kernel
    from onvm_sdk.manifest import SDK_API, Manifest
    from onvm_sdk.nf import Context, NativeKernel, NetworkFunction
    from onvm_sdk.packet import PacketView
    from onvm_sdk.verdict import Verdict

__all__ = [
    "SDK_API",
    "Burst",
    "ConfigError",
    "Context",
    "FiveTuple",
    "Manifest",
    "ManifestError",
    "NativeKernel",
    "NetworkFunction",
    "OnvmError",
    "PacketView",
    "StaleViewError",
    "Verdict",
    "kernel",
]

_HOMES = {
    "burst": ("Burst",),
    "errors": ("ConfigError", "ManifestError", "OnvmError", "StaleViewError"),
    "five_tuple": ("FiveTuple",),
    "kernel": ("kernel",),
    "manifest": ("SDK_API", "Manifest"),
    "nf": ("Context", "NativeKernel", "NetworkFunction"),
    "packet": ("PacketView",),
    "verdict": ("Verdict",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            value: object = getattr(__import__(f"onvm_sdk.{module}", fromlist=[name]), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
