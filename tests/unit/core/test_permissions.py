"""Permissions in words."""

from __future__ import annotations

from onvm_core.plugins.permissions import MEANINGS
from onvm_sdk import manifest


def test_every_permission_has_words() -> None:
    assert tuple(MEANINGS) == manifest._PERMISSIONS
