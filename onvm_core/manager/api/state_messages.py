"""Messages of the control socket about the state of an NF on its way to another host.

The agent of the host where an instance drains takes its state from the manager, piece by piece, and
the agent of the other host gives it to an instance there. See `handover`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = [
    "NfDrainRequest",
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
    """Part of the state of one stage; an empty one is its end."""

    stage: Annotated[int, msgspec.Meta(ge=0, lt=16)]
    data: bytes


class NfDrainRequest(_Tagged, frozen=True, tag="nf_drain"):
    """Let no new flows come to an instance, and let it end with those that it has.

    A sibling on this host takes its state, if it can; else it may go to another host.
    """

    name: Name


class StateTakeRequest(_Tagged, frozen=True, tag="state_take"):
    """Hold an instance still and take its state. Packets for it wait, `pause_ms` at most."""

    instance: Name
    pause_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)]


class StateReadRequest(_Tagged, frozen=True, tag="state_read"):
    """Some of the state that is being taken; what was read is not given again."""

    instance: Name


class StateDoneRequest(_Tagged, frozen=True, tag="state_done"):
    """What has become of the state that was taken."""

    instance: Name
    successor: Number | None
    """Which NF host has it now: the flows go there, and the instance ends. None: none, and packets
    come to it again."""


class StateGiveRequest(_Tagged, frozen=True, tag="state_give"):
    """Give state of an NF host elsewhere to an instance here, piece by piece."""

    instance: Name
    source: Number
    pieces: list[StatePiece]
    is_first: bool = False


class StateGivenRequest(_Tagged, frozen=True, tag="state_given"):
    """Whether the instance has taken the state of `source` over."""

    instance: Name
    source: Number


class StateReply(_Tagged, frozen=True, tag="state"):
    """How far it is."""

    step: Literal["waiting", "done", "failed"]
    """done: all of the state is in what was read, or has been taken over."""
    reason: str = ""
    pieces: list[StatePiece] = []
