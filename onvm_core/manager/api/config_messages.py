"""Messages of the control socket about changes of the manager's file and of NF configurations.

A change takes its time: a request begins it, and the client asks for its progress until it is over.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = [
    "ChangeReply",
    "ChangeStateRequest",
    "Difference",
    "ReconfigureRequest",
    "ReloadRequest",
]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
PathName = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class _Tagged(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A message with its kind in the field ``type``."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that a reload changes.

    Attributes:
        place: its field in the file.
        action: added, removed or changed.
        before, after: the value, as text; "" where there is none.
    """

    place: str
    action: Literal["added", "removed", "changed"]
    before: str = ""
    after: str = ""


class ReloadRequest(_Tagged, frozen=True, tag="reload"):
    """Make everything as a file says."""

    path: PathName | None = None
    """Absolute path; None: the file that the manager has."""
    dry_run: bool = False
    """Check everything, also in the NFs that serve, and change nothing."""


class ReconfigureRequest(_Tagged, frozen=True, tag="reconfigure"):
    """Give all instances of a service, or of a table of the file, another configuration."""

    name: Name
    path: PathName
    """Absolute path of the configuration."""


class ChangeStateRequest(_Tagged, frozen=True, tag="change_state"):
    """Ask for the progress of a change."""

    number: int


class ChangeReply(_Tagged, frozen=True, tag="change"):
    """The progress of a change."""

    number: int
    step: Literal["preparing", "applying", "done", "failed"]
    changes: list[Difference]
    replaced: list[str] = []
    """Instances that cannot change while they serve, and are replaced."""
    error: str = ""
    """The mistake because of which nothing has changed."""
    prepare_ms: float = 0.0
    """Time in which everything was prepared, while packets flowed as before."""
    apply_ms: float = 0.0
    """Time from the decision until every NF had its new configuration."""
