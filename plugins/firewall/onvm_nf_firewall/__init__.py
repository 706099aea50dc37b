# SPDX-License-Identifier: Apache-2.0
"""Stateful packet filter for onvm service chains."""

from __future__ import annotations

from typing import Any

from onvm_nf_firewall import config as _config
from onvm_sdk import NativeKernel, NetworkFunction

__all__ = ["Firewall"]


class Firewall(NetworkFunction):
    """First matching 5-tuple rule, then the default verdict; replies pass."""

    _kernel: NativeKernel

    def setup(self, ctx: Any) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_firewall.kernel import make_kernel

        self._kernel = make_kernel(_config.load(ctx.config))

    def native(self) -> NativeKernel:
        """Give the C kernel."""
        return self._kernel
