"""Messages of the control socket about lists that NFs give of their state.

NFs answer between bursts: a request asks, and the client asks for the answers until all are there.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["Entry", "InstanceAnswer", "ListMoreRequest", "ListRequest", "QuestionReply"]

ENTRIES_MAX = 10_000
"""Entries of the answer of one instance."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Text = Annotated[str, msgspec.Meta(max_length=200)]
Entry = dict[str, str | int | float | bool]


class _Tagged(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A message with its kind in the field ``type``."""


class ListRequest(_Tagged, frozen=True, tag="list"):
    """Ask all instances of a service for entries of a list, or let them remove some."""

    name: Name
    """An instance, or a service."""
    list: Annotated[str, msgspec.Meta(max_length=63)] = ""
    """Its name; empty asks for the names of all."""
    where: Annotated[dict[Name, Text], msgspec.Meta(max_length=16)] = {}
    """By the name of a field: its value, or the network that its address lies in."""
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Entries of each instance to leave out."""
    limit: Annotated[int, msgspec.Meta(ge=0, le=ENTRIES_MAX)] = 100
    """Entries of each instance at most."""
    kills: bool = False


class ListMoreRequest(_Tagged, frozen=True, tag="list_more"):
    """Ask for the answers to a question."""

    number: int


class InstanceAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of an instance."""

    instance: str
    entries: list[Entry] = []
    has_more: bool = False
    """True if there are entries behind these."""
    killed: int = 0
    lists: dict[str, str] = {}
    error: str = ""


class QuestionReply(_Tagged, frozen=True, tag="question"):
    """The answers so far."""

    number: int
    is_over: bool
    answers: list[InstanceAnswer] = []
