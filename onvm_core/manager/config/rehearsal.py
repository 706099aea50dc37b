"""A rehearsal of a file: everything that ``onvm up`` would find wrong before packets flow.

Nothing is started, opened or changed, except that each NF is set up in a process of its own, which
ends at once: only an NF knows whether it can work with its configuration.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.nf_config import NfSettings, read_nf_settings, settle
from onvm_core.manager.config.onvm_toml import NfConfig
from onvm_core.manager.nf_failure import MISTAKE
from onvm_core.manager.ports import cards_of, check_uris
from onvm_core.plugins.discovery import NfPackage, find
from onvm_core.plugins.nf_commands import check_config
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["rehearse"]


def rehearse(made: Checked) -> Iterator[str]:
    """Check ports, cards, launchers and NFs of a file; yield warnings, one line each.

    Raises:
        ConfigError: there is a mistake.
        OnvmError: an NF cannot be set up.
    """
    file, config = made.path, made.config
    uris = config.port_uris
    cards_of(uris, made.kinds, config.dataplane.settings(uris.values()), file=str(file))
    check_uris(config.port_uses, made.kinds, file=str(file))
    for group in config.groups():
        made.launchers.get(group.launcher, file=file, field=f"{group.field}.launcher")
    yield from made.launchers.warnings
    names = dict.fromkeys([*config.nfs, *(name for one in config.groups() for name in one.names)])
    for name in names:
        yield from _rehearse_nf(name, made)


def _rehearse_nf(name: str, made: Checked) -> Iterator[str]:
    nf = made.config.nfs.get(name, NfConfig())
    package = find(nf.plugin or name, made.packages)
    source: Path | Mapping[str, Any]
    if isinstance(nf.config, str):
        source = made.path.absolute().parent / nf.config
        warnings, place = check_config(package, source), Path(nf.config)
    else:
        source, place = nf.config, made.path
        try:
            warnings = check_config(package, source, made.path)
        except ConfigError as error:
            if error.file not in (None, str(made.path)):
                raise  # in a file that the table names
            field = ".".join(part for part in (f"nfs.{name}.config", error.field) if part)
            raise ConfigError(
                error.expected, file=made.path, field=field, value=error.value
            ) from None
    for warning in warnings:
        yield f"{place}: {warning}"
    with tempfile.TemporaryDirectory(prefix="onvm-check-") as folder:
        settings = read_nf_settings(
            package.manifest,
            source,
            base=made.path,
            field=f"nfs.{name}.config",
            folder=Path(folder),
        )
        settle(settings)
        _set_up(package, settings, made.config.faults.ready_s)


def _set_up(package: NfPackage, settings: NfSettings, timeout_s: float) -> None:
    command = [sys.executable, "-P", "-m", "onvm_sdk.runtime", "--check", "--nf", package.name]
    if settings.path is not None:
        command += ["--config", f"{package.name}={settings.path}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise OnvmError(f"NF {package.name} was not set up within {timeout_s:g} s") from None
    if done.returncode == 0:
        return
    lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
    said = lines[-1].removeprefix("onvm: ")
    if done.returncode != MISTAKE:
        raise OnvmError(f"NF {package.name} cannot be set up: {said}")
    if settings.path is not None:
        said = said.removeprefix(f"{settings.path}: ")
    raise ConfigError(settings.located(said))
