"""Run NFs under test, without a manager, root or a network.

result = run(PortBlocker, [packet], config={"ports": [53]})
assert result.verdicts == [Verdict.DROP]
"""

from __future__ import annotations

from onvm_sdk.testing.faults import Faults
from onvm_sdk.testing.runner import Result, Runner, load_frames, run

__all__ = ["Faults", "Result", "Runner", "load_frames", "run"]
