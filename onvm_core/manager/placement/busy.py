"""Notes about NF hosts that must never sleep, but have no CPU of their own."""

from __future__ import annotations

from onvm_core.manager.placement.policy import FreeResources

__all__ = ["busy_notes"]

NAMES_MAX = 4


def busy_notes(resources: FreeResources) -> list[str]:
    """One line for each CPU that NF hosts share with each other or with a worker."""
    notes = []
    for cpu in (one.number for one in resources.topology.cpus):
        names = resources.names_on(cpu)
        has_worker = cpu in resources.workers
        if len(names) + has_worker > 1 and names:
            shown = names[:NAMES_MAX]
            if len(names) > NAMES_MAX:
                shown.append(f"{len(names) - NAMES_MAX} other NFs")
            shown += ["a worker"] if has_worker else []
            notes.append(
                f"CPU {cpu} is shared by {_listed(shown)}, so these NFs sleep when idle; "
                "to stay busy, each needs a CPU of its own"
            )
    return notes


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
