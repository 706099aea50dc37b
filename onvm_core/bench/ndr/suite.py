"""The suite "ndr": its lines, and whether it can run here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence

from onvm_core.bench.line import BenchLine
from onvm_core.bench.ndr.latency import PERCENTILES
from onvm_core.bench.ndr.measures import LOADS
from onvm_core.bench.plugins import FLOWS, PLUGINS
from onvm_core.bench.scenario import Scenario, run_scenario
from onvm_core.plugins import discover
from onvm_sdk.errors import ConfigError
from onvm_sdk.spelling import one_of

__all__ = ["check_ndr", "ndr"]

_PACKAGES = {"MLRsearch": "MLRsearch", "hdrh": "hdrhistogram"}
"""The packages of the extra, by the name that is imported."""


def check_ndr(chain: Sequence[str]) -> None:
    """Check that the suite can run here.

    Raises:
        ConfigError: the extra is missing, or an NF of the chain is not installed.
    """
    for name, package in _PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"expected the package {package}; run: pip install 'onvm[bench]'", field="ndr"
            )
    installed = [package.name for package in discover()]
    for name in chain:
        if name not in installed:
            raise ConfigError(
                f"expected an installed NF: {one_of(installed, name)}", field="--chain", value=name
            )
    if len(set(chain)) < len(chain):
        raise ConfigError("expected each NF once", field="--chain", value=",".join(chain))


def ndr(runs: int, seconds: float, chain: Sequence[str] = PLUGINS) -> Iterator[BenchLine]:
    """Search in `chain`, and yield lines; where that is impossible, say why."""
    try:
        check_ndr(chain)
    except ConfigError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return
    scenario = Scenario(
        kind="ndr",
        way="plugins",
        hosts=[list(chain)],
        burst=32,
        is_busy=True,
        flows=FLOWS,
        track_flows=True,
        flow_capacity=1 << 18,
        seconds=seconds,
    )
    found = [run_scenario(scenario) for _ in range(runs)]
    for name in ("ndr", "pdr"):
        yield BenchLine.of(f"ndr.{name}", "Mpps", [one[name] for one in found])
    yield BenchLine.of("ndr.trials", "trials", [one["trials"] for one in found])
    for load in LOADS:
        for percentile in PERCENTILES:
            name = f"latency.{load}.{percentile}"
            yield BenchLine.of(f"ndr.{name}", "us", [one[name] for one in found])
