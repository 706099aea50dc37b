# SPDX-License-Identifier: Apache-2.0
"""Network address and port translation for onvm service chains."""

from __future__ import annotations

from onvm_nf_nat import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.nf import Context

__all__ = ["Nat"]


class Nat(NetworkFunction):
    """NAPT for IPv4: TCP, UDP, ICMP echo and the errors about them."""

    _kernel: NativeKernel

    def setup(self, ctx: Context) -> None:
        """Check the configuration, build the tables, claim the external ports."""
        from onvm_nf_nat.kernel import make_kernel

        config = _config.load(ctx.config)
        self._kernel = make_kernel(config)
        ctx.claim(str(config.external), config.ports.start, config.ports.stop, 0)

    def native(self) -> NativeKernel:
        """Give the C kernel."""
        return self._kernel
