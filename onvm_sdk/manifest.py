"""Manifests: what an ``onvm-nf.toml`` says, read and checked without importing the plugin.

The file lies beside the module of the NF's entry point::

    schema = 1
    name = "blocker"
    summary = "Drop UDP to blocked ports."
    sdk = ">=0.1,<1"
    permissions = ["rewrite", "drop"]
    drop_reasons = ["blocked"]

    [config.ports]
    type = "list"
    items = "int"
    min = 0
    max = 65535
    default = []
    description = "UDP ports that are blocked."
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from onvm_sdk.errors import ConfigError, ManifestError

__all__ = [
    "MANIFEST_NAME",
    "SDK_API",
    "ConfigKey",
    "Manifest",
    "find_manifest",
    "read_config",
    "read_manifest",
]

SDK_API = "0.1"
"""Version of the interface that this SDK offers to plugins."""
MANIFEST_NAME = "onvm-nf.toml"
SCHEMA = 1

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,30}")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,30}")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")

ItemType = Literal["bool", "int", "float", "str", "path", "table"]
Numa = Literal["any", "port"]
StateKind = Literal["none", "per-flow", "shared"]
Permission = Literal["read", "rewrite", "drop", "originate"]
ConfigType = Literal["bool", "int", "float", "str", "path", "list", "table"]
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "path": (str,),
    "list": (list,),
    "table": (dict,),
}


class ConfigKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key of an NF's configuration."""

    type: ConfigType
    description: str = ""
    default: Any = msgspec.UNSET
    """Value of a key that the user leaves out; without a default it is required."""
    min: float | None = None
    """Smallest number, or fewest characters or entries."""
    max: float | None = None
    choices: list[Any] | None = None
    items: ItemType | None = None
    """Type of the entries of a list; min, max and choices then speak of each entry."""

    @property
    def is_required(self) -> bool:
        """Whether the user must give it."""
        return self.default is msgspec.UNSET


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an NF says about itself."""

    schema: int
    name: str
    sdk: str
    """Range of SDK versions it works with, as in ``>=0.1,<1``."""
    service: str = ""
    """Its service type; the name, if left out."""
    summary: str = ""
    cores: float = 1.0
    memory_mib: int = 64
    huge_pages: bool = False
    numa: Numa = "any"
    """port: on the socket of the ports its packets come from."""
    state: StateKind = "none"
    permissions: list[Permission] = msgspec.field(default_factory=lambda: ["read"])
    drop_reasons: list[str] = []
    counters: list[str] = []
    burst_size: int = 32
    """Packets it likes to get at once, 1..2048."""
    loaned_buffers: int = 0
    """Empty buffers it wants for packets that it makes; with permission originate: 64."""
    config: dict[str, ConfigKey] = {}


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestError: it cannot be read, or does not say what it must.
    """
    return parse_manifest(_read_toml(path, ManifestError), path)


def parse_manifest(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Manifest:
    """Check the content of a manifest; `path` is for error messages."""
    manifest: Manifest = _convert({**data, "config": {}}, Manifest, path, "")
    config = data.get("config", {})
    if not isinstance(config, Mapping):
        raise ManifestError("a table expected", file=path, field="config", value=config)
    keys = {
        key: _convert(schema, ConfigKey, path, f"config.{key}") for key, schema in config.items()
    }
    manifest = msgspec.structs.replace(manifest, config=keys)

    def refuse(field: str, value: object, expected: str) -> ManifestError:
        return ManifestError(f"{expected} expected", file=path, field=field, value=value)

    if manifest.schema != SCHEMA:
        raise refuse("schema", manifest.schema, str(SCHEMA))
    for field in ("name", "service"):
        value = getattr(manifest, field)
        if (value or field == "name") and not _NAME.fullmatch(value):
            raise refuse(
                field, value, "up to 31 of a-z, 0-9, '-', '_', '.', beginning with a letter"
            )
    if not api_matches(manifest.sdk, file=path):
        raise refuse("sdk", manifest.sdk, f"a range that holds {SDK_API}, the version of this SDK,")
    for field in ("drop_reasons", "counters"):
        names = getattr(manifest, field)
        if len(names) > 16:
            raise refuse(field, len(names), "at most 16 names")
        if len(set(names)) != len(names):
            raise refuse(field, names, "names that differ")
        for name in names:
            if not _IDENTIFIER.fullmatch(name):
                raise refuse(field, name, "up to 31 of a-z, 0-9, '_', beginning with a letter")
    for field, least, most in (
        ("burst_size", 1, 2048),
        ("cores", 0.01, 64),
        ("memory_mib", 1, 1 << 20),
        ("loaned_buffers", 0, 4096),
    ):
        value = getattr(manifest, field)
        if not least <= value <= most:
            raise refuse(field, value, f"{least}..{most}")
    for key, schema in manifest.config.items():
        if not schema.is_required:
            _check_value(schema, schema.default, path, f"config.{key}.default", ManifestError)
    loaned = manifest.loaned_buffers
    if "originate" in manifest.permissions:
        loaned = loaned or 64
    elif loaned:
        raise refuse("loaned_buffers", loaned, "0, or permission 'originate',")
    return msgspec.structs.replace(
        manifest, service=manifest.service or manifest.name, loaned_buffers=loaned
    )


def find_manifest(module: str) -> Path:
    """Find the manifest beside a module without importing it.

    Raises:
        ManifestError: there is no such module, or no manifest beside it.
    """
    from importlib.util import find_spec

    top, _, rest = module.partition(".")
    spec = find_spec(top)
    if spec is None:
        raise ManifestError("an installed module expected", field="module", value=module)
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders and spec.origin is not None:
        folders = [Path(spec.origin).parent]
    inner = Path(*rest.split("."))
    for folder in folders:
        for place in (folder / inner, (folder / inner).parent, folder):
            if (place / MANIFEST_NAME).is_file():
                return place / MANIFEST_NAME
    raise ManifestError(f"{MANIFEST_NAME} beside it expected", field="module", value=module)


def api_matches(wanted: str, *, version: str = SDK_API, file: object = None) -> bool:
    """Say whether `version` lies in the range `wanted`, as in ``>=0.1,<1``.

    Raises:
        ManifestError: `wanted` is not a range.
    """
    have = _release(version)
    for clause in wanted.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            place = None if file is None else str(file)
            raise ManifestError(
                "a range like '>=0.1,<1' expected", file=place, field="sdk", value=wanted
            )
        bound = _release(match[2])
        holds = {
            ">=": have >= bound,
            "<=": have <= bound,
            "==": have == bound,
            "!=": have != bound,
            ">": have > bound,
            "<": have < bound,
        }[match[1]]
        if not holds:
            return False
    return True


def read_config(
    manifest: Manifest,
    source: str | os.PathLike[str] | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Check a user's configuration against the manifest.

    Args:
        manifest: has the schema.
        source: a TOML file, or its content, or None for all defaults. A relative path in it
            counts from the file's folder.

    Returns:
        A value for every key of the schema.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong type or range.
    """
    file: str | None = None
    data: Mapping[str, Any] = {}
    if source is not None:
        if isinstance(source, Mapping):
            data = source
        else:
            file = os.fspath(source)
            data = _read_toml(source, ConfigError)
    for key, value in data.items():
        if key not in manifest.config:
            known = ", ".join(manifest.config) or "nothing, it has no configuration"
            raise ConfigError(
                f"one of these keys expected: {known}", file=file, field=key, value=value
            )
    result: dict[str, Any] = {}
    for key, schema in manifest.config.items():
        if key in data:
            value = data[key]
            _check_value(schema, value, file, key, ConfigError)
            if schema.type == "path" and file is not None:
                value = str(Path(file).parent / value)
            result[key] = value
        elif schema.is_required:
            raise ConfigError(
                f"a value of type {schema.type} expected, there is no default", file=file, field=key
            )
        else:
            result[key] = schema.default
    return result


def _release(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _read_toml(path: str | os.PathLike[str], kind: type[ConfigError]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise kind(f"a readable file expected: {error.strerror}", file=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise kind(f"TOML expected: {error}", file=path) from None


def _check_value(
    schema: ConfigKey,
    value: Any,
    file: str | os.PathLike[str] | None,
    field: str,
    kind: type[ConfigError],
) -> None:
    if not _is_a(value, schema.type):
        raise kind(f"a value of type {schema.type} expected", file=file, field=field, value=value)
    if schema.type == "list" and schema.items is not None:
        entry = ConfigKey(type=schema.items, min=schema.min, max=schema.max, choices=schema.choices)
        for number, item in enumerate(value):
            _check_value(entry, item, file, f"{field}[{number}]", kind)
        return
    if schema.choices is not None and value not in schema.choices:
        choices = ", ".join(map(repr, schema.choices))
        raise kind(f"one of {choices} expected", file=file, field=field, value=value)
    size = value if schema.type in ("int", "float") else None
    if schema.type in ("str", "path", "list", "table"):
        size = len(value)
    unit = "" if schema.type in ("int", "float") else " entries or characters"
    if size is not None and schema.min is not None and size < schema.min:
        raise kind(f"at least {schema.min:g}{unit} expected", file=file, field=field, value=value)
    if size is not None and schema.max is not None and size > schema.max:
        raise kind(f"at most {schema.max:g}{unit} expected", file=file, field=field, value=value)


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _PYTHON_TYPES[kind])


_CHOICES = {
    "type": ConfigType,
    "numa": Numa,
    "state": StateKind,
    "permissions": Permission,
    "items": ItemType,
}


def _convert(data: Any, kind: Any, path: str | os.PathLike[str], prefix: str) -> Any:
    """Turn msgspec's "Expected `int`, got `str` - at `$.cores`" into our one line."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
    field = place.rstrip("`").lstrip(".")
    value: Any = data
    for part in re.findall(r"[^.\[\]]+", field):
        value = value[int(part)] if isinstance(value, list) else value[part]
    choices = _CHOICES.get(field.partition("[")[0])
    if choices is not None and text.startswith("Invalid enum"):
        text = f"one of {', '.join(get_args(choices))} expected"
    raise ManifestError(
        text.replace("`", "'"),
        file=path,
        field=".".join(part for part in (prefix, field) if part) or None,
        value=value if field else None,
    )
