"""The connection to a running manager, shared by all commands that need one."""

from __future__ import annotations

from onvm_core.manager.api.client import Client
from onvm_core.manager.api.directory import manager_directory, manager_names
from onvm_sdk.errors import ConfigError

__all__ = ["connect"]


def connect(name: str) -> Client:
    """A client of the manager of that name.

    Raises:
        ConfigError: it does not run; the message names those that do.
    """
    try:
        return Client(manager_directory(name))
    except ConfigError as error:
        others = manager_names()
        if not others:
            raise
        running = f"{error.expected} (running: {', '.join(others)})"
        raise ConfigError(running, field=error.field, value=error.value) from None
