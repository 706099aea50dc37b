"""Numbers that mean the same on every host: of hosts, NF hosts and chains.

They travel in packets, so a number that has just been given back must not mean something else. The
counter therefore wraps around, and skips numbers in use.
"""

from __future__ import annotations

import logging
import posixpath
import random
import time
from collections.abc import Callable, Collection

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from onvm_core.cluster.errors import ClusterError, ConflictError
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import CounterNode, DamagedError, Paths, pack, unpack

__all__ = ["CHAINS", "CHAIN_MAX", "HOSTS", "HOST_MAX", "INSTANCES", "NumberSource", "next_numbers"]

log = logging.getLogger("onvm.cluster")

HOSTS, INSTANCES, CHAINS = "hosts", "instances", "chains"
HOST_MAX = 65535
CHAIN_MAX = (1 << 23) - 1
ATTEMPTS = 100
MARGIN = 256
"""Numbers that others may have got before a tree was restored, and that are not known here."""
BACKOFF_S = 0.002


def next_numbers(last: int, count: int, maximum: int, used: Collection[int]) -> list[int]:
    """The next numbers from 1 to `maximum`, wrapping around.

    Args:
        last: the number that was given out last.
        used: numbers to leave out.

    Raises:
        ClusterError: there are not enough.
    """
    if maximum - len(used) < count:
        raise ClusterError(f"all of the {maximum} numbers are in use")
    numbers: list[int] = []
    number = last
    while len(numbers) < count:
        number = number % maximum + 1
        if number not in used:
            numbers.append(number)
    return numbers


class NumberSource:
    """Gives out numbers of one kind; any number of processes may do so at once.

    Args:
        used: gives the numbers in use, at each attempt. It may be slightly out of date, because
            numbers that have just been given out come again only after all others.
        highest: the highest number that is known to have been given out. A counter below it is that
            of a tree which was restored from a backup.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        paths: Paths,
        kind: str,
        maximum: int,
        used: Callable[[], Collection[int]],
        highest: int = 0,
    ) -> None:
        self._ensemble = ensemble
        self._path = posixpath.join(paths.numbers, kind)
        self._kind = kind
        self._maximum = maximum
        self._used = used
        self.highest = highest

    def take(self, count: int = 1) -> list[int]:
        """Numbers that no other host gets.

        Raises:
            ClusterError: there are not enough.
            NoEnsembleError: ZooKeeper does not answer; some may be lost, which does no harm.
        """
        with self._ensemble.call(f"get a number for {self._kind}") as client:
            for attempt in range(ATTEMPTS):
                try:
                    data, stat = client.get(self._path)
                    counter, version = unpack(data, CounterNode), stat.version
                except NoNodeError:
                    counter, version = CounterNode(last=0), None
                except DamagedError:  # begin again, after all numbers in use
                    last = max(self._used(), default=0) % self._maximum
                    counter, version = CounterNode(last=last, laps=1), stat.version
                if counter.laps == 0 and counter.last < self.highest <= self._maximum:
                    log.warning("numbers of %s go on after %d", self._kind, self.highest)
                    counter = CounterNode(last=min(self.highest + MARGIN, self._maximum))
                is_round = counter.laps > 0 or counter.last + count > self._maximum
                used = self._used() if is_round else ()
                numbers = next_numbers(counter.last, count, self._maximum, used)
                laps = counter.laps + (numbers[-1] <= counter.last)
                value = pack(CounterNode(last=numbers[-1], laps=laps))
                try:
                    if version is None:
                        client.create(self._path, value)
                    else:
                        client.set(self._path, value, version)
                except (BadVersionError, NodeExistsError):
                    # Others were quicker; wait, so that not all retry at once.
                    time.sleep(random.random() * BACKOFF_S * (attempt + 1))
                    continue
                return numbers
        raise ConflictError(f"get a number for {self._kind}: too many others do so at once")
