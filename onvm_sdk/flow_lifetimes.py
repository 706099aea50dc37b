"""The times for which an NF holds the state of idle flows, as its manifest says.

``flow_lifetimes`` gives seconds for classes of flows: numbers, or expressions over keys of the
configuration (`onvm_sdk.expressions`)::

    [flow_lifetimes]
    tcp_opening = "max(syn_s, syn_received_s)"
    tcp = "established_s"
    tcp_closing = 30
    udp_opening = "udp_s"
    udp = "udp_s"

The manager forgets no flow earlier, so its next packet meets the instance that knows it.
"""

from __future__ import annotations

from onvm_sdk.errors import ManifestError

# The modules for expressions take milliseconds of the 60 to the first packet: see manifest.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from onvm_sdk.manifest import Manifest

__all__ = ["LIFETIME_MAX_S", "lifetimes_ms"]

LIFETIME_MAX_S = 604_800


def lifetimes_ms(manifest: Manifest, config: Mapping[str, Any]) -> list[int] | None:
    """Return how long the state of idle flows is held, in milliseconds.

    Returns:
        A number for each of `onvm_sdk.manifest.FLOW_CLASSES`; 0 for those that are not held. None:
        the NF has state, and its manifest does not say how long it holds it.

    Raises:
        ManifestError: an expression is wrong, or its value is no time from 0 to `LIFETIME_MAX_S`.
    """
    from onvm_sdk.manifest import FLOW_CLASSES

    given = manifest.flow_lifetimes
    if not given:
        return [0] * len(FLOW_CLASSES) if manifest.state == "none" else None
    return [_ms(given.get(name, 0), config, f"flow_lifetimes.{name}") for name in FLOW_CLASSES]


def _ms(given: object, config: Mapping[str, Any], field: str) -> int:
    value = given
    if isinstance(given, str):
        value = config.get(given)
        if value is None:
            from onvm_sdk.expressions import evaluate

            value = evaluate(given, config, field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ManifestError("expected a number of seconds", field=field, value=given)
    if not 0 <= value <= LIFETIME_MAX_S:
        raise ManifestError(
            f"expected 0 to {LIFETIME_MAX_S} seconds, not {value}", field=field, value=given
        )
    return int(value * 1000)
