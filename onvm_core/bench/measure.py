"""One scenario, measured in this process: ``python -m onvm_core.bench.measure < SCENARIO``."""

from __future__ import annotations

import sys

import msgspec

from onvm_core.bench import cluster, elastic, remote, restart, traffic, turns
from onvm_core.bench.ndr import measures as ndr
from onvm_core.bench.scenario import Scenario
from onvm_sdk.errors import OnvmError

__all__ = ["main"]

_MODULES = (traffic, cluster, elastic, remote, restart, turns, ndr)


def main() -> None:
    """Read a scenario on stdin, measure, write the figures to stdout."""
    scenario = msgspec.json.decode(sys.stdin.buffer.read(), type=Scenario)
    kinds = {name: measure for module in _MODULES for name, measure in module.KINDS.items()}
    try:
        figures = kinds[scenario.kind](scenario)
    except OnvmError as error:
        sys.exit(f"{error}")
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
