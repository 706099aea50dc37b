"""The load of an NF host, from two readings of its counters.

Capacity is the rate at which an NF host would find a full burst in its ring whenever it looks;
utilisation is the rate as a share of it, and spare capacity what is left. The cost of a full burst
follows from the turns of its loop (`TurnSums`): a turn with p packets costs f + v p cycles, f for
rings, clock and entry into the NF, v for each packet; least squares over the turns between two
readings give both. So spinning, yielding and sleeping are no load, and an NF that works on large
bursts (NumPy columns: f is large) is not near its limit before its bursts fill up.

A host that does not count its turns (one of an older SDK) is judged by the cycles inside its NFs
(`busy_cycles`) and by those around them for each packet. The latter are not counted. But a host
with a backlog has no other use for its time, so they are the rest. Until a host was seen in that
state, `HANDLING_CYCLES` stands for them. With large bursts, busy time counts in proportion to how
far bursts are filled, up to half.

The counters lie in memory that the NF host writes. The results stay within their ranges whatever it
writes there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from onvm_core.dataplane.values import LoadCounters, TurnSums

__all__ = [
    "Load",
    "Meter",
    "Reading",
    "Units",
    "full_burst_cycles",
    "handling_cycles",
    "is_stuck",
    "measure",
    "quantile",
]

HANDLING_CYCLES = 30.0
"""Cycles around the NF for each packet, until they are known; 15 to 50 on the machines tried."""
HANDLING_CYCLES_MAX = 2000.0
PACKETS_MIN = 10
"""Fewer packets in an interval tell nothing about capacity."""
SATURATED = 0.9
BACKLOG_SHARE = 0.25
SPREAD_MIN = 0.01
"""Variance of burst lengths as a share of their mean, below which they are alike."""
SMALL_BURST = 64
"""Up to here, the cost of a packet hardly depends on how many come with it."""
CAPACITY_TRUST = 0.2
"""Below this utilisation the cost of a packet is mostly that of waking up and of small bursts."""
RECENT_S = 0.1
KEPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of an NF host at one moment of a monotonic clock."""

    at_s: float
    counters: LoadCounters


@dataclass(frozen=True, slots=True)
class Units:
    """The units of counters.

    Args:
        hz: cycles per second.
        ring_length: credits, for each worker.
        bounds_ns: lower bounds of the latency buckets.
    """

    hz: float
    ring_length: int
    n_workers: int
    bounds_ns: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Load:
    """The load of an NF host over an interval.

    Attributes:
        packets: packets given to it.
        done: packets that it has processed.
        sheds: packets not admitted for lack of credits.
        occupancy_mean, occupancy_peak: share of its credits in use, 0 to 1.
        p50_us, p99_us: from the link to the return, for sampled packets; None without samples.
        utilisation: share of its capacity in use, 0 to 1.
        capacity_pps: packets per second that it can take; None: there were too few to tell.
        arrival: arriving packets, shed or not, as a share of its known capacity; 0 if that is not
            known. Above 1 a queue grows; this shows sooner than the queue itself.
        occupancy: share of its credits in use at the end.
        is_stuck: packets wait, and it did not even look for them.
    """

    seconds: float
    packets: int
    done: int
    busy_cycles: int
    idle_cycles: int
    cycles_per_packet: float
    sheds: int
    occupancy: float
    occupancy_mean: float
    occupancy_peak: float
    p50_us: float | None
    p99_us: float | None
    utilisation: float
    capacity_pps: float | None
    arrival: float
    is_stuck: bool

    @property
    def pps(self) -> float:
        """Packets per second given to it."""
        return self.packets / self.seconds

    @property
    def demand(self) -> float:
        """Utilisation with all arriving packets; above 1 if it is overloaded."""
        shed = self.sheds / self.packets if self.packets else 0.0
        return max(self.utilisation * (1 + shed), self.arrival)


def measure(
    before: Reading,
    now: Reading,
    units: Units,
    handling: float = HANDLING_CYCLES,
    burst_size: int = SMALL_BURST,
    capacity_pps: float | None = None,
) -> Load:
    """The load between two readings.

    Args:
        handling: cycles around the NF for each packet; see `handling_cycles`.
        burst_size: packets that the host takes at once, at most.
        capacity_pps: what is known of its capacity.
    """
    old, new = before.counters, now.counters
    seconds = max(now.at_s - before.at_s, 1e-6)
    packets = max(new.packets - old.packets, 0)
    done = max(new.done - old.done, 0)
    sheds = max(new.shed - old.shed, 0)
    busy = max(new.busy_cycles - old.busy_cycles, 0)
    stuck = is_stuck(before, now)
    turns = _turns_between(old.turns, new.turns)
    histogram = [n - o if n > o else 0 for n, o in zip(new.latency, old.latency, strict=True)]
    mean, peak = _occupancy(before, now, packets / seconds, histogram, units)
    if turns.turns:
        share = full_burst_cycles(turns, burst_size) * done / (units.hz * seconds)
    else:
        share = (busy + handling * done) / (units.hz * seconds)
        inside = mean * units.ring_length * units.n_workers
        if burst_size > SMALL_BURST:
            share *= min(2 * inside / burst_size, 1.0)
    utilisation = 1.0 if stuck else min(share, 1.0)
    is_known = done >= PACKETS_MIN and utilisation > 0 and not stuck
    return Load(
        seconds=seconds,
        packets=packets,
        done=done,
        busy_cycles=busy,
        idle_cycles=max(new.idle_cycles - old.idle_cycles, 0),
        cycles_per_packet=busy / done if done else 0.0,
        sheds=sheds,
        occupancy=min(new.reserved / (units.ring_length * units.n_workers), 1.0),
        occupancy_mean=mean,
        occupancy_peak=peak,
        p50_us=quantile(histogram, units.bounds_ns, 0.5),
        p99_us=quantile(histogram, units.bounds_ns, 0.99),
        utilisation=utilisation,
        capacity_pps=done / seconds / utilisation if is_known else None,
        arrival=(packets + sheds) / seconds / capacity_pps if capacity_pps else 0.0,
        is_stuck=stuck,
    )


def _turns_between(old: TurnSums, new: TurnSums) -> TurnSums:
    return TurnSums(
        turns=max(new.turns - old.turns, 0),
        packets=max(new.packets - old.packets, 0),
        packets_squared=max(new.packets_squared - old.packets_squared, 0),
        cycles=max(new.cycles - old.cycles, 0),
        cycles_by_packets=max(new.cycles_by_packets - old.cycles_by_packets, 0),
    )


def full_burst_cycles(turns: TurnSums, burst_size: int) -> float:
    """Cycles for each packet when bursts are full, from turns with all kinds of bursts.

    Where all bursts are alike, or the sums make no sense, it is the mean.
    """
    n, packets = turns.turns, turns.packets
    mean = turns.cycles / max(packets, 1)
    spread = n * turns.packets_squared - packets * packets
    if spread <= n * packets * SPREAD_MIN:
        return mean
    each = (n * turns.cycles_by_packets - packets * turns.cycles) / spread
    fixed = (turns.cycles - each * packets) / n
    if each < 0 or fixed < 0:
        return mean
    return min(each + fixed / burst_size, mean)


def handling_cycles(before: Reading, now: Reading, units: Units, known: float) -> float:
    """Cycles around the NF for each packet, seen between two readings; `known` if not to see.

    A host with a backlog at both readings was not waiting for packets at either, so its idle
    cycles are complete, and what is neither idle nor busy was spent around the NF.
    """
    old, new = before.counters, now.counters
    packets = new.done - old.done
    cycles = units.hz * (now.at_s - before.at_s)
    backlog = BACKLOG_SHARE * units.ring_length * units.n_workers
    used = cycles - max(new.idle_cycles - old.idle_cycles, 0)
    if packets < PACKETS_MIN or min(old.reserved, new.reserved) < backlog:
        return known
    if used < SATURATED * cycles:
        return known
    cost = (used - (new.busy_cycles - old.busy_cycles)) / packets
    return min(max(cost, 0.0), HANDLING_CYCLES_MAX)


def quantile(histogram: Sequence[int], bounds_ns: Sequence[float], share: float) -> float | None:
    """Quantile of a latency histogram in microseconds, the middle of its bucket.

    Returns:
        None when there are no samples.
    """
    below = list(accumulate(histogram))
    if not below or below[-1] == 0:
        return None
    bucket = bisect_left(below, share * below[-1])
    return round(_middle_ns(bounds_ns, bucket) / 1000, 3)


def _middle_ns(bounds_ns: Sequence[float], bucket: int) -> float:
    upper = bounds_ns[bucket + 1] if bucket + 1 < len(bounds_ns) else bounds_ns[bucket]
    return (bounds_ns[bucket] + upper) / 2


def _occupancy(
    before: Reading, now: Reading, pps: float, histogram: Sequence[int], units: Units
) -> tuple[float, float]:
    """Mean and peak share of credits taken.

    The mean number inside is the rate times the mean time inside (Little, "A proof for the
    queuing formula L = λW", 1961); a look at two moments would miss what lies between them.
    """
    old, new = before.counters, now.counters
    credits_ = units.ring_length * units.n_workers
    n_samples = sum(histogram)
    if n_samples:
        total_ns = sum(
            count * _middle_ns(units.bounds_ns, bucket)
            for bucket, count in enumerate(histogram)
            if count
        )
        inside = pps * total_ns / n_samples / 1e9
    else:
        inside = (old.reserved + new.reserved) / 2
    mean = min(inside / credits_, 1.0)
    # The counted peak is that of all time: it speaks of this interval only if it rose in it.
    risen = new.peak / units.ring_length if new.peak > old.peak else 0.0
    peak = max(risen, old.reserved / credits_, new.reserved / credits_, mean)
    return mean, min(peak, 1.0)


def is_stuck(before: Reading, now: Reading) -> bool:
    """True if packets waited, and the host made no turn of its loop between two readings."""
    old, new = before.counters, now.counters
    return min(old.reserved, new.reserved) > 0 and (old.loops, old.done) == (new.loops, new.done)


class Meter:
    """The last readings of one NF host, and what they say.

    Attributes:
        recent: the load over the last 0.1 s or a little more; None before the second reading.
        capacity_pps: the last that was known; None at first.
    """

    def __init__(self, units: Units, burst_size: int = SMALL_BURST) -> None:
        self._units = units
        self._burst_size = burst_size
        self._readings: deque[Reading] = deque()
        self._handling = HANDLING_CYCLES
        self.recent: Load | None = None
        self.capacity_pps: float | None = None

    def add(self, reading: Reading) -> None:
        """Take a new reading."""
        if self._readings:
            before = self._readings[-1]
            self._handling = handling_cycles(before, reading, self._units, self._handling)
        self._readings.append(reading)
        while len(self._readings) > 2 and reading.at_s - self._readings[1].at_s > KEPT_S:
            self._readings.popleft()
        self._learn_capacity()

    def over(self, seconds: float) -> Load | None:
        """The load over at least `seconds`, or since the first reading.

        Returns:
            None before the second reading.
        """
        if len(self._readings) < 2:
            return None
        *earlier, now = self._readings
        before = next((r for r in reversed(earlier) if now.at_s - r.at_s >= seconds), earlier[0])
        return measure(
            before, now, self._units, self._handling, self._burst_size, self.capacity_pps
        )

    @property
    def last(self) -> Reading | None:
        """The last reading; None if there is none yet."""
        return self._readings[-1] if self._readings else None

    @property
    def has_worked(self) -> bool:
        """True if it has ever returned a packet."""
        return bool(self._readings) and self._readings[-1].counters.done > 0

    def spare_pps(self, load: Load) -> float | None:
        """Further packets per second that it could take beside `load`; None: not known."""
        if self.capacity_pps is None:
            return None
        return max(self.capacity_pps - load.pps, 0.0)

    def _learn_capacity(self) -> None:
        load = self.recent = self.over(RECENT_S)
        if load is None or load.capacity_pps is None:
            return
        known = self.capacity_pps
        if known is None or load.utilisation >= CAPACITY_TRUST:
            self.capacity_pps = load.capacity_pps
        else:
            self.capacity_pps = max(known, load.capacity_pps)
