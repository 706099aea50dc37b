"""The check of an NF's configuration, and the commands that it brings along.

Both belong to the class of the NF. It is imported only when one of them is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onvm_core.plugins.discovery import NfPackage
from onvm_sdk.errors import ConfigError, OnvmError, PluginError
from onvm_sdk.manifest import read_config, resolve
from onvm_sdk.memory import check_memory
from onvm_sdk.nf import NetworkFunction
from onvm_sdk.source import is_source, load_module
from onvm_sdk.spelling import one_of

__all__ = ["check_config", "run_command"]


def _load(target: str, field: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found: Any = load_module(module) if is_source(target) else importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    except Exception as error:  # the plugin boundary: a foreign module may raise anything
        raise PluginError(
            f"expected {target} to be importable ({type(error).__name__}: {error})", field=field
        ) from error
    return found


def _class_of(package: NfPackage) -> type[NetworkFunction]:
    found = _load(package.target, f"nf {package.name}")
    if not (isinstance(found, type) and issubclass(found, NetworkFunction)):
        raise PluginError(
            "expected a subclass of NetworkFunction",
            field=f"nf {package.name}",
            value=package.target,
        )
    return found


def _host_mib() -> int:
    """Memory of this host, all of it."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def check_config(
    package: NfPackage,
    source: str | os.PathLike[str] | Mapping[str, Any] | None,
    file: str | os.PathLike[str] | None = None,
) -> Sequence[str]:
    """Check a configuration as its manifest and its NF do.

    Args:
        source: a file, or the content of one.
        file: the file that messages name, and from whose folder paths in such content count.

    Returns:
        Warnings, one line each.

    Raises:
        ConfigError: the configuration has a mistake.
    """
    assert package.manifest is not None, "only NFs that can run are checked"
    if file is not None and isinstance(source, Mapping):  # its paths count from that file
        keys, folder = package.manifest.config, str(Path(file).parent)
        source = {k: resolve(keys[k], v, folder) if k in keys else v for k, v in source.items()}
    config = read_config(package.manifest, source)
    if file is None and isinstance(source, str | os.PathLike):
        file = source
    check_memory(package.manifest, config, _host_mib(), None if file is None else os.fspath(file))
    kind = _class_of(package)
    try:
        return kind.check_config(config, None if file is None else os.fspath(file))
    except OnvmError:
        raise
    except Exception as error:  # the plugin boundary
        raise PluginError(
            f"expected to be checked without an error ({type(error).__name__}: {error})",
            field=f"nf {package.name}",
        ) from error


def run_command(package: NfPackage, command: str, arguments: Sequence[str]) -> int:
    """Run a command of an NF and return its exit status.

    Raises:
        ConfigError: the NF has no such command.
    """
    commands = _class_of(package).commands
    if command not in commands:
        names = one_of(commands, command) if commands else "none; it has no commands"
        raise ConfigError(
            f"expected {names}",
            field=f"nf {package.name}",
            value=command,
        )
    main = _load(commands[command], f"nf {package.name} {command}")
    return int(main(list(arguments)))
