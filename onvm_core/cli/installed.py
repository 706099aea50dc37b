"""The installed plugins, read once in a process."""

from __future__ import annotations

import functools

from onvm_core.plugins import PluginManager, load_plugins

__all__ = ["plugins_of_process"]


@functools.cache
def plugins_of_process() -> PluginManager:
    """Like `load_plugins`, but only once: a command line is one process."""
    return load_plugins()
