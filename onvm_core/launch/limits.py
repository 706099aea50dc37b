"""What an NF host may use at most, and whether that must be enforced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ["LimitMode", "Limits", "describe_unenforced"]


class LimitMode(Enum):
    """Whether NF hosts are kept within their limits."""

    AVAILABLE = "available"
    """As far as this host lets us; what is not enforced is said."""
    REQUIRED = "required"
    """Nothing starts whose limits cannot be enforced."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one NF host.

    Attributes:
        cpus: it runs on these; empty: on any.
        memory_mib: all memory of its processes, without packet memory, which is the manager's.
        cpu_quota: CPUs' worth of time; None: as much as its CPUs have.
    """

    cpus: tuple[int, ...]
    memory_mib: int
    cpu_quota: float | None = None

    @property
    def controllers(self) -> dict[str, str]:
        """What people call each limit that there is, by the kernel's name of what enforces it."""
        names = {"cpuset": "CPU set"} if self.cpus else {}
        names["memory"] = "memory limit"
        return names if self.cpu_quota is None else {**names, "cpu": "CPU quota"}

    @classmethod
    def example(cls, *, with_quota: bool) -> Limits:
        """Of each kind that may be asked for, to ask what can be enforced."""
        return cls(cpus=(0,), memory_mib=1, cpu_quota=1.0 if with_quota else None)


def describe_unenforced(lacking: Mapping[str, str]) -> str:
    """One line for people: limits by name, and why each is not enforced; "" when all are."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in lacking.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"no {' and no '.join(names)}: {why}" for why, names in by_reason.items())
