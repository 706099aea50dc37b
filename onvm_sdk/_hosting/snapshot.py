"""Snapshot files: the state of an NF host's NFs for its successor.

onvm snapshot 1
[["firewall", 120], ["nat", 4096]]      names in chain order, bytes of each
...                                     the bytes from NetworkFunction.snapshot()
"""

from __future__ import annotations

import json
import os

from onvm_sdk.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_snapshot", "write_snapshot"]

_MAGIC = b"onvm snapshot 1\n"


def write_snapshot(path: str, states: Sequence[tuple[str, bytes]]) -> None:
    """Write a snapshot that only this user can read. The file appears whole.

    Raises:
        ConfigError: it cannot be written.
    """
    head = json.dumps([(name, len(state)) for name, state in states]).encode()
    part = f"{path}.{os.getpid()}"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_MAGIC + head + b"\n")
            file.writelines(state for _, state in states)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be written: {error.strerror}", field="--snapshot", value=path
        ) from error


def read_snapshot(path: str, names: Sequence[str]) -> list[bytes]:
    """Read the states of the NFs `names`.

    Raises:
        ConfigError: the file cannot be read, or belongs to other NFs.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}", field="--restore", value=path
        ) from error
    head, _, rest = content[len(_MAGIC) :].partition(b"\n")
    try:
        states = json.loads(head) if content.startswith(_MAGIC) else []
        lengths = [int(length) for _, length in states]
        found = [str(name) for name, _ in states]
    except (ValueError, TypeError):
        lengths, found = [], []
    if found != list(names) or sum(lengths) != len(rest) or min(lengths, default=0) < 0:
        raise ConfigError(
            f"expected a whole snapshot of {','.join(names)}", field="--restore", value=path
        )
    parts = []
    for length in lengths:
        parts.append(rest[:length])
        rest = rest[length:]
    return parts
