"""The other end of a veth in another network namespace.

Nothing is changed there: its settings belong to the user of that namespace.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onvm_core.interfaces.netlink import Rtnetlink

__all__ = ["Namespace", "find_namespace"]

ResultT = TypeVar("ResultT")

_CLONE_NEWNET = 0x40000000
_NAMED = "run/netns"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace with a way in.

    Attributes:
        path: file that stands for it.
        command: beginning of a command that runs in it.
    """

    path: Path
    command: str

    def inside(self, call: Callable[[], ResultT]) -> ResultT:
        """Run `call` in the namespace, on a thread of its own, because a thread does not come back.

        Raises:
            OSError: the process may not enter it.
        """
        results: list[ResultT] = []
        errors: list[OSError] = []

        def run() -> None:
            try:
                _enter(self.path)
                results.append(call())
            except OSError as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="onvm-namespace")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


def find_namespace(netlink: Rtnetlink, number: int, root: Path = Path("/")) -> Namespace | None:
    """The namespace that has a number in this one; None if it cannot be found or seen."""
    seen: set[int] = set()
    for one in _candidates(root):
        with suppress(OSError):
            status = one.path.stat()
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            descriptor = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if netlink.namespace_number(descriptor) == number:
                    return one
            finally:
                os.close(descriptor)
    return None


def _candidates(root: Path) -> Iterator[Namespace]:
    with suppress(OSError):
        for path in sorted((root / _NAMED).iterdir()):
            yield Namespace(path, f"ip netns exec {path.name}")
    for path in (root / "proc").glob("[0-9]*/ns/net"):
        yield Namespace(path, f"nsenter -t {path.parents[1].name} -n")


def _enter(path: Path) -> None:
    import ctypes  # os.setns() comes with Python 3.12

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
