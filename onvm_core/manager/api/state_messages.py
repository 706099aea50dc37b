"""Messages of the control socket about the state of an NF on its way to another host.

On the host where an instance drains, the agent takes its state from the manager, piece by piece.
The agent of the other host gives it to an instance there. See `handover`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = [
    "NfDrainRequest",
    "NfReplaceRequest",
    "StateDoneRequest",
    "StateGiveRequest",
    "StateGivenRequest",
    "StatePiece",
    "StateReadRequest",
    "StateReply",
    "StateTakeRequest",
]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Number = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _Tagged(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A message with its kind in the field ``type``."""


class StatePiece(msgspec.Struct, frozen=True, array_like=True):
    """A piece of the state of one stage; an empty piece marks the end."""

    stage: Annotated[int, msgspec.Meta(ge=0, lt=16)]
    data: bytes


class NfDrainRequest(_Tagged, frozen=True, tag="nf_drain"):
    """Send an instance no new flows, and let it end when those it has are gone.

    A sibling on this host takes its state if it can; otherwise the state may go to another host.
    """

    name: Name


class NfReplaceRequest(_Tagged, frozen=True, tag="nf_replace"):
    """Have an instance of another name take the place of one that gets no new flows meanwhile."""

    name: Name
    avoided: list[Name] = []
    """Names that the other one must not have."""


class StateTakeRequest(_Tagged, frozen=True, tag="state_take"):
    """Suspend an instance and take its state. Packets for it wait at most `pause_ms`."""

    instance: Name
    pause_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)]


class StateReadRequest(_Tagged, frozen=True, tag="state_read"):
    """Read more of the state that is being taken; each piece is given once."""

    instance: Name


class StateDoneRequest(_Tagged, frozen=True, tag="state_done"):
    """Report the outcome of the state that was taken."""

    instance: Name
    successor: Number | None
    """The NF host that has the state now: the flows go there, and the instance ends. None: no NF
    host has it, and packets go to the instance again.
    """


class StateGiveRequest(_Tagged, frozen=True, tag="state_give"):
    """Give the state of an NF host elsewhere to an instance here, piece by piece."""

    instance: Name
    source: Number
    pieces: list[StatePiece]
    is_first: bool = False


class StateGivenRequest(_Tagged, frozen=True, tag="state_given"):
    """Ask if the instance has taken over the state of `source`."""

    instance: Name
    source: Number


class StateReply(_Tagged, frozen=True, tag="state"):
    """The progress of a transfer."""

    step: Literal["waiting", "done", "failed"]
    """done: all of the state has been read, or has been taken over."""
    reason: str = ""
    pieces: list[StatePiece] = []
