"""The search for NDR and PDR by the library MLRsearch (draft-ietf-bmwg-mlrsearch).

MLRsearch is an extra (``onvm[bench]``), and is imported only to search.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

from onvm_sdk.errors import OnvmError

__all__ = ["LOSS_RATIOS", "Count", "Rates", "search"]

LOSS_RATIOS = {"ndr": 0.0, "pdr": 0.005}
"""Share of packets that may be lost, by the name of the rate."""
RATE_MIN_PPS = 1_000.0
RATE_MAX_PPS = 100e6
RELATIVE_WIDTH = 0.01
"""The search ends when a rate is known to 1 %."""
TRIALS = 5
"""A rate counts when trials of this many times the trial's time agree."""
EXCEED_RATIO = 0.5
"""At most this share of them may lose more: a virtual machine's pause is not the chain's loss."""
SEARCH_MAX = 600
"""Greatest length of a search, in trials."""
SEARCH_MIN_S = 30.0


@dataclass(frozen=True)
class Count:
    """The packets of one trial.

    Attributes:
        intended: packets to be sent.
        offered: packets that were sent in time.
        lost: packets of those that did not leave; also those that NFs dropped.
        overhead_s: time beside the trial itself.
    """

    intended: int
    offered: int
    lost: int
    overhead_s: float = 0.0


@dataclass(frozen=True)
class Rates:
    """The result of a search, in packets per second.

    Attributes:
        ndr: greatest rate without loss.
        pdr: greatest rate with at most 0.5 % loss.
        trials: number of trials.
    """

    ndr: float
    pdr: float
    trials: int


class _Measurer:
    """The object that MLRsearch calls for each trial."""

    def __init__(self, trial: Callable[[float, float], Count]) -> None:
        self._trial = trial
        self.trials = 0

    def measure(self, intended_duration: float, intended_load: float) -> object:
        """Run one trial; in seconds and packets per second."""
        from MLRsearch import MeasurementResult

        self.trials += 1
        count = self._trial(intended_load, intended_duration)
        return MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            intended_count=count.intended,
            offered_count=count.offered,
            loss_count=count.lost,
            duration_with_overheads=intended_duration + count.overhead_s,
        )


def search(trial: Callable[[float, float], Count], seconds: float) -> Rates:
    """Find NDR and PDR.

    Args:
        trial: sends at a rate in packets per second for some seconds, and counts.
        seconds: length of the final trials; the first ones are shorter.

    Raises:
        OnvmError: even the lowest rate has loss, or the search took too long.
    """
    from MLRsearch import Config, MultipleLossRatioSearch, SearchGoal

    first = SearchGoal(
        loss_ratio=LOSS_RATIOS["ndr"],
        exceed_ratio=EXCEED_RATIO,
        relative_width=RELATIVE_WIDTH,
        initial_trial_duration=seconds / 2,
        final_trial_duration=seconds,
        duration_sum=TRIALS * seconds,
        preceding_targets=2,
        expansion_coefficient=2,
        fail_fast=False,
    )
    goals = {
        name: dataclasses.replace(first, loss_ratio=ratio) for name, ratio in LOSS_RATIOS.items()
    }
    config = Config(
        goals=list(goals.values()),
        min_load=RATE_MIN_PPS,
        max_load=RATE_MAX_PPS,
        search_duration_max=max(SEARCH_MAX * seconds, SEARCH_MIN_S),
        warmup_duration=None,
    )
    measurer = _Measurer(trial)
    try:
        found = MultipleLossRatioSearch(config=config).search(
            measurer=measurer, debug=logging.getLogger(__name__).debug
        )
    except RuntimeError as error:
        # The library's only way to say that its time is over.
        raise OnvmError(f"ndr: no rate was found in {measurer.trials} trials: {error}") from error
    rates = {}
    for name, goal in goals.items():
        throughput = found[goal].conditional_throughput
        if throughput is None:
            raise OnvmError(f"ndr: packets are lost even at {RATE_MIN_PPS:,.0f} a second")
        rates[name] = float(throughput)
    return Rates(ndr=rates["ndr"], pdr=rates["pdr"], trials=measurer.trials)
