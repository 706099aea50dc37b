"""The installed plugins, looked for once in a process."""

from __future__ import annotations

import functools

from onvm_core.plugins import PluginManager, load_plugins

__all__ = ["plugins_of_process"]


@functools.cache
def plugins_of_process() -> PluginManager:
    """As `load_plugins`: a command line is one process, and looks around once."""
    return load_plugins()
