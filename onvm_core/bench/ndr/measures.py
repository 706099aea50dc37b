"""The scenario "ndr", measured in its own process."""

from __future__ import annotations

from collections.abc import Callable

from onvm_core.bench.harness import end_all, manager_of, start_nfs
from onvm_core.bench.ndr.latency import PERCENTILES, percentiles_us
from onvm_core.bench.ndr.search import search
from onvm_core.bench.ndr.trial import Trials
from onvm_core.bench.scenario import Scenario

__all__ = ["KINDS", "LOADS"]

LOADS = (10, 50, 90)
"""Loads at which latency is measured, in percent of the NDR."""


def _ndr(scenario: Scenario) -> dict[str, float]:
    """NDR and PDR in Mpps, and the percentiles of latency in microseconds at each load."""
    with manager_of(scenario) as manager:
        processes = start_nfs(manager, scenario)
        try:
            services = [service for host in scenario.hosts for service in host]
            trials = Trials(manager, services, scenario.flows)
            trials.warm_up()
            rates = search(trials.run, scenario.seconds)
            figures = {
                "ndr": rates.ndr / 1e6,
                "pdr": rates.pdr / 1e6,
                "trials": float(rates.trials),
            }
            bounds = manager.plane.latency_bounds_ns()
            for load in LOADS:
                histogram = trials.latency(rates.ndr * load / 100, scenario.seconds)
                found = percentiles_us(histogram, bounds)
                figures |= {f"latency.{load}.{name}": found[name] for name in PERCENTILES}
        finally:
            end_all(processes)
    return figures


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {"ndr": _ndr}
