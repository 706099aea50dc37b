"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import container_storage


@pytest.fixture(scope="session", autouse=True)
def storage() -> Iterator[Path]:
    """A folder for images and containers: also asking podman whether it works writes to one."""
    yield from container_storage()
