"""Failures of NF hosts, and the words that say how one ended."""

from __future__ import annotations

import signal
from pathlib import Path

from onvm_core.launch.launcher import Handle
from onvm_core.manager.nf_hosts.stack import innermost
from onvm_sdk.errors import OnvmError

__all__ = ["MISTAKE", "NfFailed", "is_failure", "last_words"]

MISTAKE = 2
"""Exit status of an NF host with a mistake in a configuration."""
_SIGNALS = 128
"""Exit statuses above it are of programs that a signal has ended, as shells give them."""


class NfFailed(OnvmError):  # noqa: N818  it failed; the error may be anything
    """An NF ended, or was not ready in time; the message contains its last lines.

    Attributes:
        log: the NF's log.
        is_mistake: a user's mistake, in its configuration.
    """

    def __init__(self, message: str, log: Path | None = None, *, is_mistake: bool = False) -> None:
        super().__init__(message)
        self.log = log
        self.is_mistake = is_mistake


def is_failure(status: int) -> bool:
    """True if an NF host that was told to end raised, or had to be killed."""
    return status == -signal.SIGKILL or 0 < status < _SIGNALS


def last_words(handle: Handle, why: str = "") -> str:
    """Describe how an NF host ended (or `why`), with the last line it wrote."""
    status = handle.poll()
    how = (
        "still runs"
        if status is None
        else (f"was ended by signal {-status}" if status < 0 else f"ended with status {status}")
    )
    lines = [line.strip() for line in handle.log_tail() if line.strip()]
    ours = [line for line in lines if line.startswith("onvm: ")]
    said = (ours or lines or ["it said nothing"])[-1]
    if status == MISTAKE and ours:  # the line of a user's mistake says it all
        return said.removeprefix("onvm: ")
    if ours and status is not None and status < 0:  # a stack follows
        said += innermost(handle.log_tail())
    return f"NF {'+'.join(handle.spec.nfs)} {why or how}: {said} (log: {handle.spec.log_path})"
