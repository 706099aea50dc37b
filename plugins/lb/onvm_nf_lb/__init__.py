# SPDX-License-Identifier: Apache-2.0
"""Layer-4 load balancer for onvm service chains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from onvm_nf_lb import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.errors import ConfigError
from onvm_sdk.nf import Context

if TYPE_CHECKING:
    from onvm_nf_lb.config import LbConfig
    from onvm_nf_lb.kernel import Balancer, Plan
    from onvm_nf_lb.watch import Watch

__all__ = ["Lb"]

_MAGIC = b"LB03"
_USUAL_TIMER_S = 1.0
_WATCH_TIMER_S = 0.1
_SWITCH_S = 0.0001
"""How long the thread of the NF may wait for the interpreter while the other one runs."""
_USAGE_NS = 1_000_000_000


def _check_surroundings(config: LbConfig) -> None:
    """Refuse checks that cannot work here, before they take every backend out."""
    from onvm_nf_lb.probes import has_network, may_send_icmp

    for i, vip in enumerate(config.vips):
        if vip.check is None or vip.check.type == "script":
            continue
        expected = ""
        if not has_network():
            expected = "expected none: this NF host has no network; the launcher process gives it"
        elif vip.check.type == "icmp" and not may_send_icmp():
            expected = "expected another type: this NF host may not open sockets for ICMP"
        if expected:
            raise ConfigError(expected, field=f"vips[{i}].check.type", value=vip.check.type)


class Prepared(NamedTuple):
    """Another configuration, ready for use."""

    plan: Plan
    watch: Watch | None
    balancer: Balancer | None = None
    """Tables of another size."""


def _is_watched(config: LbConfig) -> bool:
    return bool(config.settings.report) or any(vip.changes for vip in config.vips)


class Lb(NetworkFunction):
    """Maglev hashing for new connections, a table for those that run."""

    timer_interval_s = _USUAL_TIMER_S
    lists: ClassVar[Mapping[str, str]] = {
        "backends": "backends of the VIPs, with what they carry",
        "connections": "connections, with the backends that they go to",
    }

    _balancer: Balancer
    _watch: Watch | None = None
    _usage_ns = 0

    def setup(self, ctx: Context) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_lb.kernel import Balancer

        self._ctx = ctx
        config = _config.load(ctx.config)
        if _is_watched(config):
            self._watch = self._new_watch(config)
            self._balancer = Balancer(config, self._watch.plan)
            self._begin_watch()
        else:
            self._balancer = Balancer(config)
        self._tell_addresses()

    def prepare(self, config: Mapping[str, Any]) -> Prepared:
        """Fill the lookup tables of other VIPs, or make all tables for another size."""
        from onvm_nf_lb.kernel import Balancer, Plan
        from onvm_nf_lb.shares import initial_shares

        checked, current = _config.load(config), self._balancer
        watch = self._new_watch(checked) if _is_watched(checked) else None
        plan = watch.plan if watch else Plan(checked, initial_shares(checked), current.plan)
        if checked.settings.max_connections == current.max_connections:
            return Prepared(plan, watch)
        return Prepared(plan, watch, Balancer(checked, plan))

    def reconfigure(self, config: Prepared) -> None:
        """Use other VIPs, backends and weights; TCP connections stay where they are."""
        if config.balancer is None:
            self._balancer.apply(config.plan)
        else:
            config.balancer.take_over(self._balancer, time.monotonic_ns())
            self._balancer = config.balancer
        if self._watch is not None:
            self._watch.end()
        self._watch = config.watch
        self._begin_watch()
        self._tell_addresses()

    def _new_watch(self, config: LbConfig) -> Watch:
        from onvm_nf_lb.watch import Watch  # asyncio takes as long as all the rest

        _check_surroundings(config)
        before = self._watch.pool if self._watch is not None else None
        return Watch(config, self._ctx.instance or self._ctx.name, before=before)

    def _begin_watch(self) -> None:
        import sys

        if self._watch is not None:
            self.timer_interval_s = _WATCH_TIMER_S
            sys.setswitchinterval(_SWITCH_S)
            self._watch.start()

    def _tell_addresses(self) -> None:
        vips = self._balancer.plan.config.vips
        self._ctx.own_addresses(list(dict.fromkeys(str(vip.address) for vip in vips)))

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._balancer.kernel

    def on_timer(self, now_ns: int) -> None:
        """Forget connections whose time is over, also without packets; take changes over."""
        self._balancer.tick(now_ns)
        if self._watch is None:
            return
        plan = self._watch.take()
        if plan is not None:
            self._balancer.apply(plan)
        failing = self._balancer.take_failing()
        if failing:
            self._watch.tell_failing(self._balancer.plan, failing)
        if self._balancer.plan.config.settings.report and now_ns - self._usage_ns >= _USAGE_NS:
            self._usage_ns = now_ns
            self._watch.tell_usage(self._balancer.plan, self._balancer.usage_bytes())

    def on_message(self, sender: str, payload: bytes) -> None:
        """Print the state of VIPs and backends to the log when asked for "backends"."""
        if payload == b"backends":
            if self._watch is None:
                self._watch = self._new_watch(self._balancer.plan.config)
                self._balancer.apply(self._watch.plan)
                self._begin_watch()
            self._watch.tell_usage(self._balancer.plan, self._balancer.usage_bytes())
            self._watch.report_to_log()

    def show(self, what: str) -> Iterator[dict[str, Any]]:
        """List backends or connections."""
        from onvm_nf_lb.lists import backends, connections

        return backends(self._balancer) if what == "backends" else connections(self._balancer)

    def kill(self, what: str, entry: Mapping[str, Any]) -> bool:
        """Forget a connection; backends stay."""
        from onvm_nf_lb.lists import kill_connection

        return what == "connections" and kill_connection(self._balancer, entry)

    def snapshot(self) -> bytes:
        """Return all connections as bytes."""
        return _MAGIC + self._balancer.save(time.monotonic_ns())

    def restore(self, snapshot: bytes) -> None:
        """Take over another instance's connections."""
        if not snapshot.startswith(_MAGIC):
            raise ValueError("the snapshot is of something else")
        self._balancer.restore(snapshot[len(_MAGIC) :], time.monotonic_ns())

    def teardown(self) -> None:
        """End the thread that watches backends."""
        if self._watch is not None:
            self._watch.end()
            self._watch.join()
