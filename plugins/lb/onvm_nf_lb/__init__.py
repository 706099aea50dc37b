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


def _addresses(config: _config.LbConfig) -> list[str]:
    """Return the addresses of the VIPs, each once."""
    return list(dict.fromkeys(str(vip.address) for vip in config.vips))


class Lb(NetworkFunction):
    """Maglev hashing for new connections, a table for those that run."""

    timer_interval_s = 1.0

    _balancer: Balancer

    def setup(self, ctx: Context) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_lb.kernel import Balancer

        config = _config.load(ctx.config)
        self._own_addresses = ctx.own_addresses
        self._balancer = Balancer(config)
        self._own_addresses(_addresses(config))

    def prepare(self, config: Mapping[str, Any]) -> tuple[list[str], Converted | Balancer]:
        """Fill the lookup tables of other VIPs, or make all tables for another size."""
        from onvm_nf_lb.kernel import Balancer, convert

        checked = _config.load(config)
        if checked.settings.max_connections == self._balancer.max_connections:
            return _addresses(checked), convert(checked)
        return _addresses(checked), Balancer(checked)

    def reconfigure(self, config: tuple[list[str], Converted | Balancer]) -> None:
        """Use other VIPs, backends and weights; TCP connections stay where they are."""
        addresses, made = config
        if isinstance(made, tuple):
            self._balancer.update(made)
        else:
            made.take_over(self._balancer, time.monotonic_ns())
            self._balancer = made
        self._own_addresses(addresses)

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


def _addresses(config: _config.LbConfig) -> list[str]:
    return list(dict.fromkeys(str(vip.address) for vip in config.vips))
