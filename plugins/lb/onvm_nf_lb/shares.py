# SPDX-License-Identifier: Apache-2.0
"""How new connections are shared out to the backends of a VIP."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from onvm_nf_lb.config import Backend, LbConfig, Vip

__all__ = ["SLOW_START_STEPS", "Health", "Share", "Shares", "initial_shares", "share_out"]

SLOW_START_STEPS = 10


class Health(IntEnum):
    """What becomes of connections to a backend: `enum lb_health` in lb.h."""

    UP = 0
    DOWN_KEEP = 1
    DOWN_RESET = 2


class Share(NamedTuple):
    """The weight of a backend for new connections, and its health."""

    weight: int
    health: Health = Health.UP


Shares = Sequence[Sequence[Share]]
"""For each VIP of a configuration, and each of its backends."""


def share_out(vip: Vip, up: Sequence[bool], steps: Sequence[int]) -> tuple[Share, ...]:
    """Share new connections to a VIP out.

    Backup backends get none while any other gets some.

    Args:
        up: for each backend whether it may get connections.
        steps: for each how far its slow start has come, 1 to `SLOW_START_STEPS`.
    """
    down = Health.DOWN_RESET if vip.resets else Health.DOWN_KEEP
    scales = steps if vip.slow_start_s else [1] * len(steps)
    weights = [
        backend.weight * scale if is_up else 0
        for backend, is_up, scale in zip(vip.backends, up, scales, strict=True)
    ]
    has_primary = any(
        weight for backend, weight in zip(vip.backends, weights, strict=True) if not backend.backup
    )
    return tuple(
        Share(0 if backend.backup and has_primary else weight, Health.UP if is_up else down)
        for backend, weight, is_up in zip(vip.backends, weights, up, strict=True)
    )


def initial_shares(config: LbConfig) -> Shares:
    """Shares as long as nothing is known about any backend: all are up."""
    return [_initial(vip.backends, vip) for vip in config.vips]


def _initial(backends: Sequence[Backend], vip: Vip) -> tuple[Share, ...]:
    return share_out(vip, [True] * len(backends), [SLOW_START_STEPS] * len(backends))
