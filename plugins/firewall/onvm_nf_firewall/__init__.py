# SPDX-License-Identifier: Apache-2.0
"""Stateful packet filter for onvm service chains."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from onvm_nf_firewall import config as _config
from onvm_nf_firewall.config import FirewallConfig
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.nf import Port

__all__ = ["Firewall"]

_log = logging.getLogger(__name__)
_MAGIC = b"FW02"
_EXPIRY_S = 0.1  # a tenth of the table each time, so all of it once a second


class Firewall(NetworkFunction):
    """First matching rule, then the default verdict; replies pass."""

    commands: ClassVar[Mapping[str, str]] = {
        "import": "onvm_nf_firewall.importing.command:main",
        "explain": "onvm_nf_firewall.explain:main",
    }
    lists: ClassVar[Mapping[str, str]] = {
        "connections": "connections, by the end that opened them, with their states",
        "rules": "rules, with the packets that each has decided",
    }
    _kernel: NativeKernel

    @classmethod
    def check_config(cls, config: Mapping[str, Any], file: str | None) -> Sequence[str]:
        """Check a configuration, and warn of rules that never decide."""
        from onvm_nf_firewall.program import compile_rules
        from onvm_nf_firewall.shadowed import warnings

        checked = _config.load(config, file=file)
        compile_rules(checked, file=file)
        return warnings(checked)

    def setup(self, ctx: Any) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_firewall.kernel import make_kernel
        from onvm_nf_firewall.shadowed import warnings

        config = _config.load(ctx.config)
        for line in warnings(config):
            _log.warning("firewall: %s", line)
        self._ports: dict[int, str] = {}
        self._kernel = make_kernel(config)
        self._counters = ctx.counters
        self._follow(config)

    def _follow(self, config: FirewallConfig) -> None:
        """Use a configuration whose kernel is `self._kernel`."""
        self._config = config
        self._logging = {rule.number: rule for rule in config.all_rules() if rule.action == "log"}
        is_timed = config.is_tracking or bool(self._logging)
        self.timer_interval_s = _EXPIRY_S if is_timed else 0.0

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel

    def on_ports(self, ports: Sequence[Port]) -> None:
        """Learn the names of ports, which rules ask for."""
        from onvm_nf_firewall.kernel import bind_ports

        self._ports = {port.number: port.name for port in ports}
        bind_ports(self._kernel, self._ports, self._config.settings.egress)
        self._name_unknown_ports()

    def _name_unknown_ports(self) -> None:
        """Write a line for each name in the rules that no port has."""
        known = ", ".join(self._ports.values()) or "there is none"
        for place, name in self._config.port_names():
            is_pattern = name.endswith("*")
            if not is_pattern and name not in self._ports.values():
                line = f"{place}: {name!r}: expected a port ({known})"
                print(line, file=sys.stderr, flush=True)

    def on_timer(self, now_ns: int) -> None:
        """Delete idle connections, also while no packets come, and write what rules have logged."""
        from onvm_nf_firewall.kernel import expire

        self._counters["connections_expired"] += expire(self._kernel, now_ns)
        if self._logging:
            self._write_events()

    def _write_events(self) -> None:
        """Write a line of JSON for each event."""
        from onvm_nf_firewall.kernel import events
        from onvm_nf_firewall.names import name_of_protocol

        for event in events(self._kernel):
            rule = self._logging[event.rule]
            line = {
                "event": "firewall",
                "rule": rule.name,
                "prefix": rule.prefix,
                "in": self._ports.get(event.port, str(event.port)),
                "src": event.src,
                "dst": event.dst,
                "protocol": name_of_protocol(event.protocol),
                "src_port": event.src_port,
                "dst_port": event.dst_port,
                "flags": event.flags,
                "vlan": event.vlan,
                "length": event.length,
                "time_ns": event.time_ns,
            }
            print(json.dumps(line), file=sys.stderr, flush=True)

    def show(self, what: str) -> Iterator[dict[str, Any]]:
        """List connections or rules."""
        from onvm_nf_firewall.lists import connections, rules

        if what == "rules":
            return rules(self._kernel, self._config)
        return connections(self._kernel)

    def kill(self, what: str, entry: Mapping[str, Any]) -> bool:
        """Forget a connection; rules stay."""
        from onvm_nf_firewall.lists import kill_connection

        return what == "connections" and kill_connection(self._kernel, entry)

    def prepare(self, config: Any) -> Any:
        """Build the tables of other rules."""
        from onvm_nf_firewall.kernel import make_kernel

        checked = _config.load(config)
        return checked, make_kernel(checked)

    def reconfigure(self, config: Any) -> None:
        """Use other rules; connections stay."""
        from onvm_nf_firewall.kernel import bind_ports, restore, save

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
        if self._logging:
            self._write_events()
        bind_ports(kernel, self._ports, checked.settings.egress)
        self._kernel = kernel
        self._follow(checked)
        self._name_unknown_ports()

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
