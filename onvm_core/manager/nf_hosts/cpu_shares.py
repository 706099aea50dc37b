"""The NF hosts that share their CPU, as the kernel has it: they must not poll without a pause.

Two processes that poll one CPU get it for milliseconds each in turn, and a chain through both waits
all that time: 0.1 Mpps in place of 10. A host that sleeps leaves the CPU to the one that has the
packets. `sched_yield` was tried as well: alone on the machine it is as fast as sleeping, but each
call may give a whole time slice to any other process, and then it has 0.1 to 0.55 of the rate.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

__all__ = ["cpus_of", "sharing"]


def cpus_of(pid: int) -> frozenset[int]:
    """The CPUs on which a process may run; empty if it is gone."""
    try:
        return frozenset(os.sched_getaffinity(pid))
    except OSError:
        return frozenset()


def sharing(hosts: Mapping[int, frozenset[int]], workers: Collection[int]) -> set[int]:
    """The hosts that share a CPU with another host or with a worker.

    A host that may run on the CPU of a worker is one of them, wherever it runs now. It takes no
    CPU from others for good, so it does not count against them.

    Args:
        hosts: CPUs of each host, by its slot.
        workers: CPUs of the workers.
    """
    own = {slot: cpus for slot, cpus in hosts.items() if cpus and cpus.isdisjoint(workers)}
    return {
        slot
        for slot in hosts
        if slot not in own or any(own[slot] & cpus for other, cpus in own.items() if other != slot)
    }
