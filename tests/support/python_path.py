"""PYTHONPATH of programs that tests start."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["python_path"]


def python_path(folder: Path) -> dict[str, str]:
    """This environment with `folder` first on the path; a debug build may follow on it."""
    given = os.environ.get("PYTHONPATH")
    path = [str(folder), *([given] if given else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
