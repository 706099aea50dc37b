# SPDX-License-Identifier: Apache-2.0
"""Layer-4 load balancer for onvm service chains."""

from __future__ import annotations

from onvm_nf_lb import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.nf import Context

__all__ = ["Lb"]


class Lb(NetworkFunction):
    """Maglev hashing for new connections, a table for those that run."""

    _kernel: NativeKernel

    def setup(self, ctx: Context) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_lb.kernel import Balancer

        self._kernel = Balancer(_config.load(ctx.config)).kernel

    def native(self) -> NativeKernel:
        """Give the C kernel."""
        return self._kernel
