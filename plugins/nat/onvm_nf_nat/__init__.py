# SPDX-License-Identifier: Apache-2.0
"""Network address and port translation for onvm service chains."""

from __future__ import annotations

import struct
import time

from onvm_nf_nat import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.nf import Context

__all__ = ["Nat"]

_HEAD = struct.Struct("=4s4sI")
_BLOCK = struct.Struct("=II")
_MAGIC = b"NAT1"


class Nat(NetworkFunction):
    """NAPT for IPv4: TCP, UDP, ICMP echo and the errors about them."""

    _kernel: NativeKernel

    def setup(self, ctx: Context) -> None:
        """Check the configuration, build the tables, claim the external ports."""
        from onvm_nf_nat.kernel import make_kernel

        config = _config.load(ctx.config).of_instance(ctx.instance)
        self._ctx = ctx
        self._external = config.external
        self._block = (config.ports.start, config.ports.stop)
        self._inherited: list[tuple[int, int]] = []
        self._kernel = make_kernel(config)
        ctx.claim(str(config.external), *self._block, 0)

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel

    def snapshot(self) -> bytes:
        """Return all sessions as bytes, with the blocks of their external ports."""
        from onvm_nf_nat.kernel import save

        blocks = [self._block, *self._inherited]
        head = _HEAD.pack(_MAGIC, self._external.packed, len(blocks))
        sessions = save(self._kernel, time.monotonic_ns())
        return head + b"".join(_BLOCK.pack(*block) for block in blocks) + sessions

    def restore(self, snapshot: bytes) -> None:
        """Take over another instance's sessions, and claim their blocks."""
        from onvm_nf_nat.kernel import restore

        if len(snapshot) < _HEAD.size:
            raise ValueError("the snapshot is too short")
        magic, external, n_blocks = _HEAD.unpack_from(snapshot)
        end = _HEAD.size + n_blocks * _BLOCK.size
        if magic != _MAGIC or len(snapshot) < end:
            raise ValueError("the snapshot is of something else")
        if external != self._external.packed:
            raise ValueError("the snapshot is of another external address")
        restore(self._kernel, snapshot[end:], time.monotonic_ns())
        for block in _BLOCK.iter_unpack(snapshot[_HEAD.size : end]):
            if block not in (self._block, *self._inherited):
                self._inherited.append((block[0], block[1]))
                self._ctx.claim(str(self._external), *block, 0)

    def inherits(self) -> bool:
        """Return whether another instance's block is still in use; give it up if not."""
        from onvm_nf_nat.kernel import inherited

        if inherited(self._kernel):
            return True
        while self._inherited:
            self._ctx.unclaim(str(self._external), *self._inherited.pop(), 0)
        return False
