# SPDX-License-Identifier: Apache-2.0
"""Network address and port translation for onvm service chains."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from onvm_nf_nat import config as _config
from onvm_nf_nat.config import NatConfig
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.nf import Context, Port

__all__ = ["Nat"]

_HEAD = struct.Struct("=4sII")
_BLOCK = struct.Struct("=II")
_MAGIC = b"NAT3"


class Nat(NetworkFunction):
    """NAPT for IPv4, and NAT64: TCP, UDP, ICMP queries and the errors about them."""

    timer_interval_s = 1.0
    lists: ClassVar[Mapping[str, str]] = {
        "mappings": "inside endpoints and the external ones that they have",
        "sessions": "mappings together with the remote endpoints that they talk to",
    }

    _kernel: NativeKernel

    def setup(self, ctx: Context) -> None:
        """Check the configuration, build the tables, claim the external ports."""
        from onvm_nf_nat.kernel import make_kernel, make_key

        config = _config.load(ctx.config).of_instance(ctx.instance)
        self._ctx = ctx
        self._key = make_key()
        self._externals = config.externals
        self._block = (config.ports.start, config.ports.stop)
        self._inherited: list[tuple[int, int]] = []
        self._mtu, self._nat64 = config.settings.mtu, config.nat64
        self._logs = config.settings.log_mappings
        self._ports: Sequence[Port] = ()
        self._kernel = make_kernel(config, self._key)
        self._tell_ports(self._kernel, self._mtu)
        for external in self._externals:
            ctx.claim(str(external), *self._block, 0)
        self._own_addresses(config)

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel

    def on_ports(self, ports: Sequence[Port]) -> None:
        """Leave hairpinned and large packets to the router of the chain, if there is one: ports
        with addresses have it.
        """
        self._ports = ports
        self._tell_ports(self._kernel, self._mtu)

    def _tell_ports(self, kernel: NativeKernel, mtu: int) -> None:
        from onvm_nf_nat.kernel import set_mtu, set_routed

        is_routed = any(port.link for port in self._ports)
        is_tagged = any(port.link.get("vlans") for port in self._ports)
        least = min((port.mtu for port in self._ports if port.mtu), default=0)
        set_routed(kernel, is_routed, is_tagged=is_tagged)
        set_mtu(kernel, mtu or (0 if is_routed else least), mtu or least)

    def on_timer(self, now_ns: int) -> None:
        """Forget sessions whose time is over, also without packets, and write what was logged."""
        from onvm_nf_nat.kernel import tick

        tick(self._kernel, now_ns)
        if self._logs:
            self._write_log()
        if self._inherited:
            self.inherits()

    def _write_log(self) -> None:
        from onvm_nf_nat.log import lines

        for line in lines(self._kernel):
            print(line, file=sys.stderr, flush=True)

    def show(self, what: str) -> Iterator[dict[str, Any]]:
        """List mappings or sessions."""
        from onvm_nf_nat.lists import mappings, sessions

        return mappings(self._kernel) if what == "mappings" else sessions(self._kernel)

    def kill(self, what: str, entry: Mapping[str, Any]) -> bool:
        """End a mapping with its sessions, or a session."""
        from onvm_nf_nat.lists import kill

        return kill(self._kernel, what, entry)

    def prepare(self, config: Mapping[str, Any]) -> tuple[range, NatConfig, NativeKernel]:
        """Build the tables of another configuration."""
        from onvm_nf_nat.kernel import make_kernel

        checked = _config.load(config)
        own = checked.of_instance(self._ctx.instance)
        return checked.ports, own, make_kernel(own, self._key)

    def reconfigure(self, config: tuple[range, NatConfig, NativeKernel]) -> None:
        """Use other pools and limits. Sessions that are still allowed keep their ports."""
        from onvm_nf_nat.kernel import allowed, inherited, restore, save

        ports, own, kernel = config
        now_ns = time.monotonic_ns()
        # another prefix would give the servers of running sessions another address
        keeps_hosts = own.nat64 is not None and own.nat64 == self._nat64
        sessions = allowed(kernel, save(self._kernel, now_ns), ports, keeps_hosts=keeps_hosts)
        try:
            restore(kernel, sessions, now_ns)
        except NativeError as error:
            raise ConfigError(
                f"expected room for the sessions there are ({error})",
                field="max_sessions",
                value=own.settings.max_sessions,
            ) from None
        before = self._claims()
        block = (own.ports.start, own.ports.stop)
        others = [one for one in (self._block, *self._inherited) if one != block]
        self._inherited = others if inherited(kernel) else []
        self._mtu, self._nat64 = own.settings.mtu, own.nat64
        if self._logs:
            self._write_log()
        self._logs = own.settings.log_mappings
        self._tell_ports(kernel, self._mtu)
        self._externals, self._block, self._kernel = own.externals, block, kernel
        after = self._claims()
        for claim in sorted(after - before):
            self._ctx.claim(*claim, 0)
        for claim in sorted(before - after):
            self._ctx.unclaim(*claim, 0)
        self._own_addresses(own)

    def _own_addresses(self, config: NatConfig) -> None:
        mine = [*config.externals, *(external for _, external in config.pairs)]
        self._ctx.own_addresses([str(address) for address in mine])

    def _claims(self) -> set[tuple[str, int, int]]:
        blocks = (self._block, *self._inherited)
        return {(str(address), *block) for address in self._externals for block in blocks}

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
