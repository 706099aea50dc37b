"""The limits of an NF host, and the strictness of their enforcement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ["LimitMode", "Limits", "describe_unenforced"]


class LimitMode(Enum):
    """The strictness with which NF hosts are kept within their limits."""

    AVAILABLE = "available"
    """As far as this host allows; limits that are not enforced are reported."""
    REQUIRED = "required"
    """Nothing starts whose limits cannot be enforced."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one NF host.

    Attributes:
        cpus: CPUs that it runs on; empty: any.
        memory_mib: all memory of its processes, except packet memory, which belongs to the manager.
        cpu_quota: CPU time, in CPUs; None: as much as its CPUs have.
    """

    cpus: tuple[int, ...]
    memory_mib: int
    cpu_quota: float | None = None

    @property
    def controllers(self) -> dict[str, str]:
        """The name of each limit for people, by the kernel's name of the controller that enforces
        it.
        """
        names = {"cpuset": "CPU set"} if self.cpus else {}
        names["memory"] = "memory limit"
        return names if self.cpu_quota is None else {**names, "cpu": "CPU quota"}

    @classmethod
    def example(cls, *, with_quota: bool) -> Limits:
        """Limits of each kind that may be wanted, to ask which can be enforced."""
        return cls(cpus=(0,), memory_mib=1, cpu_quota=1.0 if with_quota else None)


def describe_unenforced(lacking: Mapping[str, str]) -> str:
    """One line for people: limits by name, and why each is not enforced; "" if all are."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in lacking.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"no {' and no '.join(names)}: {why}" for why, names in by_reason.items())
