# SPDX-License-Identifier: Apache-2.0
"""Layer-4 load balancer for onvm service chains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onvm_nf_lb import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.nf import Context

if TYPE_CHECKING:
    from onvm_nf_lb.kernel import Balancer, Converted

__all__ = ["Lb"]

_MAGIC = b"LB02"


class Lb(NetworkFunction):
    """Maglev hashing for new connections, a table for those that run."""

    timer_interval_s = 1.0

    _balancer: Balancer

    def setup(self, ctx: Context) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_lb.kernel import Balancer

        config = _config.load(ctx.config)
        self._balancer = Balancer(config)
        ctx.own_addresses(list(dict.fromkeys(str(vip.address) for vip in config.vips)))

    def prepare(self, config: Mapping[str, Any]) -> Converted | Balancer:
        """Fill the lookup tables of other VIPs, or make all tables for another size."""
        from onvm_nf_lb.kernel import Balancer, convert

        checked = _config.load(config)
        if checked.settings.max_connections == self._balancer.max_connections:
            return convert(checked)
        return Balancer(checked)

    def reconfigure(self, config: Converted | Balancer) -> None:
        """Use other VIPs, backends and weights; TCP connections stay where they are."""
        if isinstance(config, tuple):
            self._balancer.update(config)
        else:
            config.take_over(self._balancer, time.monotonic_ns())
            self._balancer = config

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._balancer.kernel

    def on_timer(self, now_ns: int) -> None:
        """Forget connections whose time is over, also without packets."""
        self._balancer.tick(now_ns)

    def snapshot(self) -> bytes:
        """Return all connections as bytes."""
        return _MAGIC + self._balancer.save(time.monotonic_ns())

    def restore(self, snapshot: bytes) -> None:
        """Take over another instance's connections."""
        if not snapshot.startswith(_MAGIC):
            raise ValueError("the snapshot is of something else")
        self._balancer.restore(snapshot[len(_MAGIC) :], time.monotonic_ns())
