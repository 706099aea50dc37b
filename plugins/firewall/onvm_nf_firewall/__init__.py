# SPDX-License-Identifier: Apache-2.0
"""Stateful packet filter for onvm service chains."""

from __future__ import annotations

import logging
import time
from typing import Any

from onvm_nf_firewall import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.errors import ConfigError, NativeError

__all__ = ["Firewall"]

_log = logging.getLogger(__name__)
_MAGIC = b"FW02"
_EXPIRY_S = 0.1  # a tenth of the table each time, so all of it once a second


class Firewall(NetworkFunction):
    """First matching 5-tuple rule, then the default verdict; replies pass."""

    _kernel: NativeKernel

    def setup(self, ctx: Any) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_firewall.kernel import make_kernel
        from onvm_nf_firewall.shadowed import warnings

        config = _config.load(ctx.config)
        for line in warnings(config.rules):
            _log.warning("firewall: %s", line)
        self._kernel = make_kernel(config)
        self._counters = ctx.counters
        if config.is_tracking:
            self.timer_interval_s = _EXPIRY_S

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel

    def on_timer(self, now_ns: int) -> None:
        """Delete idle connections, also while no packets come."""
        from onvm_nf_firewall.kernel import expire

        self._counters["connections_expired"] += expire(self._kernel, now_ns)

    def prepare(self, config: Any) -> Any:
        """Build the tables of other rules."""
        from onvm_nf_firewall.kernel import make_kernel

        checked = _config.load(config)
        return checked, make_kernel(checked)

    def reconfigure(self, config: Any) -> None:
        """Use other rules; connections stay."""
        from onvm_nf_firewall.kernel import restore, save

        checked, kernel = config
        now_ns = time.monotonic_ns()
        try:
            restore(kernel, save(self._kernel, now_ns), now_ns)
        except NativeError as error:
            raise ConfigError(
                f"expected room for the connections there are ({error})",
                field="max_connections",
                value=checked.settings.max_connections,
            ) from None
        self._kernel = kernel
        self.timer_interval_s = _EXPIRY_S if checked.is_tracking else 0.0

    def snapshot(self) -> bytes:
        """Return all connections as bytes."""
        from onvm_nf_firewall.kernel import save

        return _MAGIC + save(self._kernel, time.monotonic_ns())

    def restore(self, snapshot: bytes) -> None:
        """Take over another instance's connections."""
        from onvm_nf_firewall.kernel import restore

        if not snapshot.startswith(_MAGIC):
            raise ValueError("the snapshot is of something else")
        restore(self._kernel, snapshot[len(_MAGIC) :], time.monotonic_ns())
