# SPDX-License-Identifier: Apache-2.0
"""The class an NF author derives from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["NativeKernel", "NetworkFunction"]


@dataclass(frozen=True, slots=True)
class NativeKernel:
    """A compiled kernel: `function` is called with `state`; `keepalive` owns both."""

    function: int
    state: int
    keepalive: object


class NetworkFunction:
    """Base of network functions."""

    def setup(self, ctx: Any) -> None:
        """Take the configuration, make the state."""

    def native(self) -> NativeKernel | None:
        """Give the compiled kernel, if there is one."""
        return None
