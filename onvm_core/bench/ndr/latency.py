"""Percentiles of latency, by HdrHistogram.

hdrhistogram is an extra (``onvm[bench]``), and is imported only to compute them.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PERCENTILES", "percentiles_us"]

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}
"""Percentiles by the names that lines and JSON have."""
NS_MAX = 100_000_000_000
SIGNIFICANT_DIGITS = 3
STEPS = 8
"""The packets of a bucket of the data plane, a quarter of a power of two, are spread over it in so
many steps: percentiles do not jump from bucket to bucket."""


def percentiles_us(histogram: Sequence[int], bounds_ns: Sequence[float]) -> dict[str, float]:
    """Percentiles in microseconds, by their names in `PERCENTILES`.

    Args:
        histogram: packets by bucket.
        bounds_ns: lower bounds of the buckets, in nanoseconds.

    Returns:
        Zeros where there are no packets.
    """
    from hdrh.histogram import HdrHistogram

    hdr = HdrHistogram(1, NS_MAX, SIGNIFICANT_DIGITS)
    for bucket, packets in enumerate(histogram):
        if packets == 0:
            continue
        lower = bounds_ns[bucket]
        upper = bounds_ns[bucket + 1] if bucket + 1 < len(bounds_ns) else lower
        each, rest = divmod(packets, STEPS)
        for step in range(STEPS):
            share = each + (1 if step < rest else 0)
            if share:
                value = lower + (upper - lower) * (step + 0.5) / STEPS
                hdr.record_value(min(round(value), NS_MAX), share)
    if hdr.get_total_count() == 0:
        return dict.fromkeys(PERCENTILES, 0.0)
    return {name: hdr.get_value_at_percentile(p) / 1000 for name, p in PERCENTILES.items()}
