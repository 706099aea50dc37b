# SPDX-License-Identifier: Apache-2.0
"""Network address and port translation for onvm service chains."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from onvm_nf_nat import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.nf import Context, Port

__all__ = ["Nat"]

_HEAD = struct.Struct("=4sII")
_BLOCK = struct.Struct("=II")
_MAGIC = b"NAT2"


class Nat(NetworkFunction):
    """NAPT for IPv4: TCP, UDP, ICMP queries and the errors about them."""

    timer_interval_s = 1.0

    _kernel: NativeKernel

    def setup(self, ctx: Context) -> None:
        """Check the configuration, build the tables, claim the external ports."""
        from onvm_nf_nat.kernel import make_kernel

        config = _config.load(ctx.config).of_instance(ctx.instance)
        self._ctx = ctx
        self._externals = config.externals
        self._block = (config.ports.start, config.ports.stop)
        self._inherited: list[tuple[int, int]] = []
        self._kernel = make_kernel(config)
        for external in self._externals:
            ctx.claim(str(external), *self._block, 0)
        ctx.own_addresses([str(external) for external in self._externals])

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel

    def on_ports(self, ports: Sequence[Port]) -> None:
        """Leave hairpinned packets to the router of the chain, which ports with addresses have."""
        from onvm_nf_nat.kernel import set_routed

        set_routed(self._kernel, any(port.link for port in ports))

    def on_timer(self, now_ns: int) -> None:
        """Forget sessions whose time is over, also without packets."""
        from onvm_nf_nat.kernel import tick

        tick(self._kernel, now_ns)

    def snapshot(self) -> bytes:
        """Return all sessions as bytes, with the blocks of their external ports."""
        from onvm_nf_nat.kernel import save

        blocks = [self._block, *self._inherited]
        head = _HEAD.pack(_MAGIC, len(self._externals), len(blocks))
        addresses = b"".join(external.packed for external in self._externals)
        sessions = save(self._kernel, time.monotonic_ns())
        return head + addresses + b"".join(_BLOCK.pack(*block) for block in blocks) + sessions

    def restore(self, snapshot: bytes) -> None:
        """Take over another instance's sessions, and claim their blocks."""
        from onvm_nf_nat.kernel import restore

        if len(snapshot) < _HEAD.size:
            raise ValueError("the snapshot is too short")
        magic, n_externals, n_blocks = _HEAD.unpack_from(snapshot)
        first_block = _HEAD.size + 4 * n_externals
        end = first_block + n_blocks * _BLOCK.size
        if magic != _MAGIC or len(snapshot) < end:
            raise ValueError("the snapshot is of something else")
        if snapshot[_HEAD.size : first_block] != b"".join(e.packed for e in self._externals):
            raise ValueError("the snapshot is of another external address")
        restore(self._kernel, snapshot[end:], time.monotonic_ns())
        for block in _BLOCK.iter_unpack(snapshot[first_block:end]):
            if block not in (self._block, *self._inherited):
                self._inherited.append((block[0], block[1]))
                for external in self._externals:
                    self._ctx.claim(str(external), *block, 0)

    def inherits(self) -> bool:
        """Return whether another instance's block is still in use; give it up if not."""
        from onvm_nf_nat.kernel import inherited

        if inherited(self._kernel):
            return True
        while self._inherited:
            block = self._inherited.pop()
            for external in self._externals:
                self._ctx.unclaim(str(external), *block, 0)
        return False
