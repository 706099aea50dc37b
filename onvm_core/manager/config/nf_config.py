"""The configuration of an NF, as new NF hosts and those that serve get it."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onvm_core.manager.config.toml_writer import format_toml
from onvm_sdk.errors import ConfigError
from onvm_sdk.manifest import Manifest, files_of, read_config, resolve

__all__ = ["NfSettings", "read_nf_settings", "settle"]

_FIELD = re.compile(r"[\w.\[\]-]+: ")


@dataclass(frozen=True, slots=True)
class NfSettings:
    """A configuration that has been checked against the manifest of its NF.

    Attributes:
        path: the file that a new NF host reads; None: it has none.
        values: its values, with all defaults.
        files: the files that it names, by their paths, with their contents now.
        file, field: the place of its mistakes, for messages.
        content: the bytes that a serving NF host gets; `onvm_sdk._hosting.reconfigure` reads them.
        table: the values that the file at `path` has, if it is made from a table.
    """

    path: Path | None
    values: Mapping[str, Any]
    files: Mapping[str, bytes]
    file: str
    field: str
    content: bytes
    table: Mapping[str, Any] | None = None

    @property
    def digest(self) -> bytes:
        """A digest of everything that the NF reads; empty for an NF that reads nothing."""
        return hashlib.sha256(self.content).digest() if self.path is not None else b""

    def located(self, said: str) -> str:
        """Put file and field before what an NF said of a value of this configuration."""
        if not self.field:
            return f"{self.file}: {said}"
        joint = "." if _FIELD.match(said) else ": "
        return f"{self.file}: {self.field}{joint}{said}"

    def mistake(self, error: ConfigError) -> ConfigError:
        """The error about a value of this configuration, with file and field."""
        return _with_place(error, self.file, self.field)


def read_nf_settings(
    manifest: Manifest | None,
    source: Path | Mapping[str, Any],
    *,
    base: Path,
    field: str,
    folder: Path,
) -> NfSettings:
    """Check a configuration, and read all files that belong to it.

    Args:
        source: a file, or the table in the file `base`.
        field: the field of that table.
        folder: the folder for a file made from a table; `settle` writes it.

    Raises:
        ConfigError: it has a mistake.
    """
    table: Mapping[str, Any] | None = None
    if isinstance(source, Path):
        path: Path | None = source
        place = str(source), ""
        values = _checked(manifest, source)
    else:
        place = str(base), field
        home = base.absolute().parent
        known = manifest.config if manifest is not None else {}
        table = {
            key: resolve(known[key], value, str(home)) if key in known else value
            for key, value in source.items()
        }
        try:
            values = _checked(manifest, table)
        except ConfigError as error:
            raise _with_place(error, *place) from None
        digest = hashlib.sha256(_packed(table, {})).hexdigest()[:12]
        path = folder / f"{field.split('.')[1]}-{digest}.toml" if table else None
    files = {}
    for name, key in (files_of(manifest, values) if manifest is not None else {}).items():
        files[name] = _content(Path(name), key, place)
    return NfSettings(path, values, files, *place, _packed(values, files), table)


def _with_place(error: ConfigError, file: str, field: str) -> ConfigError:
    if error.file is not None:
        return error
    whole = ".".join(part for part in (field, error.field) if part)
    return ConfigError(error.expected, file=file, field=whole or None, value=error.value)


def _packed(values: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    toml = format_toml({key: value for key, value in values.items() if value is not None}).encode()
    lengths = [(path, len(content)) for path, content in files.items()]
    return b"".join((json.dumps([len(toml), lengths]).encode(), b"\n", toml, *files.values()))


def _checked(manifest: Manifest | None, source: Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if manifest is not None:
        return read_config(manifest, source)
    return tomllib.loads(source.read_text()) if isinstance(source, Path) else source


def _content(path: Path, key: str, place: tuple[str, str]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}",
            file=place[0],
            field=".".join(part for part in (place[1], key) if part),
            value=str(path),
        ) from None


def settle(settings: NfSettings) -> None:
    """Write the file that new NF hosts read, if it is made from a table."""
    if settings.path is None or settings.table is None:
        return
    settings.path.parent.mkdir(mode=0o700, exist_ok=True)
    settings.path.write_text(format_toml(settings.table), encoding="utf-8")
