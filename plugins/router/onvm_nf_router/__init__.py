# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6 router for onvm service chains."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from onvm_nf_router import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.errors import ConfigError
from onvm_sdk.nf import Context, Port

__all__ = ["Router"]

MTU_USUAL = 1500


def mac_for(interface: _config.Interface, port: Port) -> bytes:
    """Return the MAC address of an interface.

    One that is made here is locally administered. It depends on the address of the port's
    interface, so it stays the same and no other host on the link makes the same one.

    Raises:
        ConfigError: it is to have the address of an interface that is not known.
    """
    import hashlib

    if interface.mac == "interface" and not port.mac:
        raise ConfigError(
            "expected a port with an interface of the kernel",
            field=f"interfaces.{interface.name}.mac",
            value=interface.mac,
        )
    if interface.mac == "interface":
        return bytes.fromhex(port.mac.replace(":", ""))
    if interface.mac:
        return bytes.fromhex(interface.mac.replace(":", ""))
    digest = hashlib.sha256(f"onvm router {port.mac} {port.name}".encode()).digest()
    return b"\x02" + digest[:5]


class Router(NetworkFunction):
    """Forwards packets between the links of its interfaces, and answers for its addresses."""

    timer_interval_s = 0.1
    _kernel: NativeKernel

    def setup(self, ctx: Context) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_router.kernel import make_kernel

        self._config = _config.load(ctx.config)
        self._bound: dict[int, tuple[int, bytes, int]] = {}
        self._kernel = make_kernel(self._config)

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel

    def on_ports(self, ports: Sequence[Port]) -> None:
        """Give each interface the port of its name."""
        from onvm_nf_router.kernel import bind, unbind

        by_name = {port.name: port for port in ports}
        for number, interface in enumerate(self._config.interfaces):
            port = by_name.get(interface.port)
            if port is None:
                if self._bound.pop(number, None) is not None:
                    unbind(self._kernel, number)
                known = ", ".join(by_name) or "there is none"
                print(
                    f"interfaces.{interface.name}.port: {interface.port!r}: "
                    f"expected a port ({known})",
                    file=sys.stderr,
                    flush=True,
                )
                continue
            wanted = (
                port.number,
                mac_for(interface, port),
                interface.mtu or port.mtu or MTU_USUAL,
            )
            if self._bound.get(number) != wanted:
                bind(self._kernel, number, *wanted)
                self._bound[number] = wanted
