"""Where a user's managers keep their sockets and logs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from onvm_sdk.errors import ConfigError

__all__ = ["runtime_directory", "temporary_directory"]


def runtime_directory() -> Path:
    """The user's directory for sockets: ``$ONVM_RUNTIME_DIR``, ``$XDG_RUNTIME_DIR/onvm`` or
    ``/tmp/onvm-UID``; made if need be, only the user may enter.

    Raises:
        ConfigError: it belongs to somebody else.
    """
    base = os.environ.get("ONVM_RUNTIME_DIR")
    if base is None:
        user = os.environ.get("XDG_RUNTIME_DIR")
        is_usable = user is not None and os.access(user, os.W_OK)
        base = f"{user}/onvm" if is_usable else f"{tempfile.gettempdir()}/onvm-{os.getuid()}"
    path = Path(base)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
        raise ConfigError(
            "expected a directory of this user", field="runtime directory", value=base
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory for one run inside `runtime_directory`; removed when it is closed."""
    return tempfile.TemporaryDirectory(prefix="run-", dir=runtime_directory())
