"""Manifests: ``onvm-nf.toml``, read and checked without importing the plugin.

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
import sys
from collections.abc import Mapping

from onvm_sdk.errors import ConfigError, ManifestError
from onvm_sdk.limits import (
    BURST_MAX,
    COUNTERS_MAX,
    HELD_MAX,
    NAME_LENGTH,
    REASONS_MAX,
)
from onvm_sdk.spelling import one_of

# msgspec, dataclasses and pathlib would be a third of the 60 ms from exec to the first packet.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, ClassVar

__all__ = [
    "FLOW_CLASSES",
    "MANIFEST_NAME",
    "NF_NAME_LETTERS",
    "SDK_API",
    "ConfigKey",
    "Manifest",
    "find_manifest",
    "parse_manifest",
    "read_config",
    "read_manifest",
]

SDK_API = "0.1"
"""Version of the interface that this SDK offers to plugins."""
MANIFEST_NAME = "onvm-nf.toml"
SCHEMA = 1
LOANED_MAX = 4096
LOANED_USUAL = 64
"""Buffers that an NF with permission ``originate`` is lent if it does not say how many."""
BURST_USUAL = 32

_NAME_LETTERS = NAME_LENGTH - 1
NF_NAME_LETTERS = _NAME_LETTERS - len("-9999")
"""Letters in the name of an NF: those of its instances have a number behind it."""
_NAME = re.compile(rf"[a-z][a-z0-9_.-]{{0,{NF_NAME_LETTERS - 1}}}")
_IDENTIFIER = re.compile(rf"[a-z][a-z0-9_]{{0,{_NAME_LETTERS - 1}}}")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")

FLOW_CLASSES = ("tcp_opening", "tcp", "tcp_closing", "udp_opening", "udp", "icmp", "other")
"""Classes of flows that have lifetimes of their own."""

_NUMA = ("any", "port")
_AFFINITY = ("flow", "source", "destination")
_STATE = ("none", "per-flow", "shared")
FRAGMENTS = ("pass", "virtual", "reassemble")
"""Forms of datagrams that come in fragments, by their numbers in ``enum onvm_fragments``."""
_PERMISSIONS = ("read", "rewrite", "drop", "originate", "network", "files")
_ITEMS = ("bool", "int", "float", "str", "path", "table")
_TYPES = (*_ITEMS[:5], "list", "table", "any")
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "path": (str,),
    "list": (list,),
    "table": (dict,),
    "any": (object,),
}


class _Field:
    """One key of a manifest: its type, its choices, and its default."""

    def __init__(
        self,
        kind: str,
        default: object = None,
        *,
        choices: tuple[str, ...] = (),
        required: bool = False,
    ) -> None:
        self.kind = kind
        self.default = default
        self.choices = choices
        self.is_required = required


class _Record:
    """An immutable value with the fields of a table."""

    _FIELDS: ClassVar[dict[str, _Field]]

    def __init__(self, **values: Any) -> None:
        for name, field in self._FIELDS.items():
            value = values.pop(name, field.default)
            self.__dict__[name] = list(value) if isinstance(value, tuple) else value
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"


class ConfigKey(_Record):
    """One key of an NF's configuration."""

    type: str
    """Type of the value."""
    description: str
    """One line for users."""
    default: Any
    """Value if the user leaves the key out. A key without a default is required."""
    min: float | None
    """Smallest number, or the least number of characters or entries."""
    max: float | None
    """Greatest number, or the greatest number of characters or entries."""
    choices: list[Any] | None
    """The values that are allowed."""
    items: str | None
    """Type of the entries of a list; min, max and choices then apply to each entry."""
    is_required: bool
    """True if the user must set the key."""

    _FIELDS: ClassVar = {
        "type": _Field("str", choices=_TYPES, required=True),
        "description": _Field("str", ""),
        "default": _Field("any"),
        "min": _Field("float"),
        "max": _Field("float"),
        "choices": _Field("list"),
        "items": _Field("str", choices=_ITEMS),
    }

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__["is_required"] = "default" not in values

    def to_dict(self) -> dict[str, Any]:
        """Return the content of its table in a manifest."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name != "is_required" and not (name == "default" and self.is_required)
        }


class Manifest(_Record):
    """The description that an NF gives of itself, in ``onvm-nf.toml``."""

    schema: int
    """Version of this format: 1."""
    name: str
    """Name of the NF."""
    sdk: str
    """Range of SDK versions that it works with, as in ``>=0.1,<1``."""
    service: str
    """Its service type; the default is the name."""
    summary: str
    """One line that says what it does."""
    cores: float
    """CPUs that an instance needs at full load."""
    memory_mib: int
    """The most memory that a process with this NF alone needs: interpreter, libraries and its own
    state, but not packet memory."""
    memory_bytes: str
    """Bytes beyond that, as an expression over keys of the configuration; see `onvm_sdk.memory`."""
    huge_pages: bool
    """True if its own memory needs huge pages."""
    numa: str
    """port: on the NUMA node of its packets' ports; any: anywhere."""
    state: str
    """Its memory: none, of each flow, or of several flows together."""
    affinity: str
    """The key by which flows are shared among instances: the flow itself, the address from which
    packets come that go forwards (source), or the one that they go to (destination)."""
    flow_lifetimes: dict[str, Any]
    """The times for which it holds the state of idle flows; see `onvm_sdk.flow_lifetimes`."""
    permissions: list[str]
    """Its rights to change, drop and make packets, and to what lies outside of its process."""
    drop_reasons: list[str]
    """Names of its reasons to drop packets, 16 at most."""
    counters: list[str]
    """Names of its counters, 16 at most."""
    burst_size: int
    """Preferred number of packets in a burst, 1..2048."""
    loaned_buffers: int
    """Empty buffers for packets that it creates; with permission originate the default is 64."""
    held_packets: int
    """Packets that it wants to hold at once, 0..65536."""
    wire_sized: bool
    """True: it sees packets as they are on the wire, none merged and with complete checksums."""
    fragments: str
    """The form in which it gets datagrams in fragments. pass: the fragments as they come; virtual:
    the fragments, each with the ports of the first one; reassemble: whole datagrams."""
    config: dict[str, ConfigKey]
    """The keys of its configuration."""

    _FIELDS: ClassVar = {
        "schema": _Field("int", required=True),
        "name": _Field("str", required=True),
        "sdk": _Field("str", required=True),
        "service": _Field("str", ""),
        "summary": _Field("str", ""),
        "cores": _Field("float", 1.0),
        "memory_mib": _Field("int", 256),
        "memory_bytes": _Field("str", ""),
        "huge_pages": _Field("bool", False),
        "numa": _Field("str", "any", choices=_NUMA),
        "state": _Field("str", "none", choices=_STATE),
        "affinity": _Field("str", "flow", choices=_AFFINITY),
        "flow_lifetimes": _Field("table"),
        "permissions": _Field("list", ("read",), choices=_PERMISSIONS),
        "drop_reasons": _Field("list", ()),
        "counters": _Field("list", ()),
        "burst_size": _Field("int", BURST_USUAL),
        "loaned_buffers": _Field("int", 0),
        "held_packets": _Field("int", 0),
        "wire_sized": _Field("bool", False),
        "fragments": _Field("str", "pass", choices=FRAGMENTS),
        "config": _Field("table"),
    }

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"config": {}, "flow_lifetimes": {}} | values)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, in the form of its file, with all defaults."""
        config = {name: key.to_dict() for name, key in self.config.items()}
        return {**self.__dict__, "config": config}

    def replace(self, **values: Any) -> Manifest:
        """Return a copy with other `values`."""
        return Manifest(**{**self.__dict__, **values})


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestError: it cannot be read, or has a mistake.
    """
    return parse_manifest(_read_toml(path, ManifestError), path)


def parse_manifest(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Manifest:
    """Check the content of a manifest; `path` is for error messages."""
    _check_fields(Manifest._FIELDS, data, path, "")
    keys = {}
    for key, schema in data.get("config", {}).items():
        if not isinstance(schema, Mapping):
            raise ManifestError("expected a table", file=path, field=f"config.{key}", value=schema)
        _check_fields(ConfigKey._FIELDS, schema, path, f"config.{key}.")
        keys[key] = ConfigKey(**schema)
    manifest = Manifest(**{**data, "config": keys})

    def refuse(field: str, value: object, expected: str) -> ManifestError:
        return ManifestError(f"expected {expected}", file=path, field=field, value=value)

    if manifest.schema != SCHEMA:
        raise refuse("schema", manifest.schema, str(SCHEMA))
    for field in ("name", "service"):
        value = getattr(manifest, field)
        if (value or field == "name") and not _NAME.fullmatch(value):
            expected = f"1 to {NF_NAME_LETTERS} of a-z, 0-9, '-', '_', '.', a letter first"
            raise refuse(field, value, expected)
    if not api_matches(manifest.sdk, file=path):
        raise refuse(
            "sdk", manifest.sdk, f"a range that contains {SDK_API}, the version of this SDK"
        )
    for field, most in (("drop_reasons", REASONS_MAX), ("counters", COUNTERS_MAX)):
        names = getattr(manifest, field)
        if len(names) > most:
            raise refuse(field, len(names), f"at most {most} names")
        if len(set(names)) != len(names):
            raise refuse(field, names, "names that differ from each other")
        for name in names:
            if not _IDENTIFIER.fullmatch(name):
                expected = f"1 to {_NAME_LETTERS} of a-z, 0-9, '_', a letter first"
                raise refuse(field, name, expected)
    for field, least, most in (
        ("burst_size", 1, BURST_MAX),
        ("cores", 0.01, 64),
        ("memory_mib", 1, 1 << 20),
        ("loaned_buffers", 0, LOANED_MAX),
        ("held_packets", 0, HELD_MAX),
    ):
        value = getattr(manifest, field)
        if not least <= value <= most:
            raise refuse(field, value, f"{least} to {most}")
    for name, given in manifest.flow_lifetimes.items():
        if name not in FLOW_CLASSES:
            raise refuse("flow_lifetimes", name, f"one of {', '.join(FLOW_CLASSES)}")
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise refuse(f"flow_lifetimes.{name}", given, "seconds, or an expression")
    expressions = {"memory_bytes": manifest.memory_bytes}
    expressions |= {f"flow_lifetimes.{k}": str(v) for k, v in manifest.flow_lifetimes.items()}
    for field, text in expressions.items():
        for name in re.findall(r"(?<![\w'\"])[a-z_]\w*(?![\w'\"(])", text):
            if name not in manifest.config:
                raise refuse(field, text, f"keys of `config`, not {name}")
    for key, schema in manifest.config.items():
        if not schema.is_required:
            _check_value(schema, schema.default, path, f"config.{key}.default", ManifestError)
    loaned = manifest.loaned_buffers
    if "originate" in manifest.permissions:
        loaned = loaned or LOANED_USUAL
    elif loaned:
        raise refuse("loaned_buffers", loaned, "0, or the permission 'originate'")
    return manifest.replace(service=manifest.service or manifest.name, loaned_buffers=loaned)


def find_manifest(module: str) -> Path:
    """Find the manifest beside a module without importing it.

    Raises:
        ManifestError: there is no such module, or no manifest beside it.
    """
    from pathlib import Path

    return Path(manifest_file(module))


def manifest_file(module: str) -> str:
    """Like find_manifest(), but return text instead of a Path."""
    top, _, rest = module.partition(".")
    spec = _find_spec(top)
    if spec is None:
        raise ManifestError("expected an installed module", field="module", value=module)
    folders = list(spec.submodule_search_locations or ())
    if spec.origin is not None:  # the search locations of an editable install are no folders
        folders.append(os.path.dirname(spec.origin))
    inner = rest.replace(".", "/")
    for folder in folders:
        for place in (os.path.join(folder, inner), os.path.dirname(os.path.join(folder, inner))):
            file = os.path.join(place, MANIFEST_NAME)
            if os.path.isfile(file):
                return file
        file = os.path.join(folder, MANIFEST_NAME)
        if os.path.isfile(file):
            return file
    raise ManifestError(f"expected {MANIFEST_NAME} beside it", field="module", value=module)


def _find_spec(module: str) -> Any:
    """Like importlib.util.find_spec() for a top-level module, without its imports."""
    if module in sys.modules:
        return sys.modules[module].__spec__
    for finder in sys.meta_path:
        spec = finder.find_spec(module, None)
        if spec is not None:
            return spec
    return None


def api_matches(wanted: str, *, version: str = SDK_API, file: object = None) -> bool:
    """Return whether `version` lies in the range `wanted`, as in ``>=0.1,<1``.

    Raises:
        ManifestError: `wanted` is not a range.
    """
    have = _release(version)
    for clause in wanted.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            place = None if file is None else str(file)
            raise ManifestError(
                "expected a range like '>=0.1,<1'", file=place, field="sdk", value=wanted
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
        manifest: the manifest with the schema.
        source: a TOML file, or its content, or None for all defaults. A relative path in the file
            starts at the file's folder.

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
            known = manifest.config
            what = one_of(known, key) if known else "no key; the NF has no configuration"
            raise ConfigError(f"expected {what}", file=file, field=key, value=value)
    result: dict[str, Any] = {}
    for key, schema in manifest.config.items():
        if key in data:
            value = data[key]
            _check_value(schema, value, file, key, ConfigError)
            if file is not None:
                value = resolve(schema, value, os.path.dirname(file))
            result[key] = value
        elif schema.is_required:
            raise ConfigError(
                f"expected a value of type {schema.type}; there is no default", file=file, field=key
            )
        else:
            result[key] = schema.default
    return result


def resolve(schema: ConfigKey, value: Any, folder: str) -> Any:
    """Return the value of a key with paths that count from `folder`."""
    if schema.type == "path":
        return os.path.join(folder, value)
    if schema.type == "list" and schema.items == "path":
        return [os.path.join(folder, one) for one in value]
    return value


def files_of(manifest: Manifest, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that a configuration names, by their paths, with the key of each."""
    found: dict[str, str] = {}
    for key, schema in manifest.config.items():
        value = config.get(key)
        if schema.type == "path" and value:
            found[str(value)] = key
        elif schema.type == "list" and schema.items == "path":
            found |= {str(one): key for one in value or ()}
    return found


def _release(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _read_toml(path: str | os.PathLike[str], kind: type[ConfigError]) -> dict[str, Any]:
    import tomllib  # a fifth of all imports; a class with its own `manifest` needs none

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise kind(f"expected a file that can be read: {error.strerror}", file=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise kind(f"expected TOML: {error}", file=path) from None


def _check_value(
    schema: ConfigKey,
    value: Any,
    file: str | os.PathLike[str] | None,
    field: str,
    kind: type[ConfigError],
) -> None:
    if not _is_a(value, schema.type):
        raise kind(f"expected a value of type {schema.type}", file=file, field=field, value=value)
    if schema.type == "list" and schema.items is not None:
        entry = ConfigKey(type=schema.items, min=schema.min, max=schema.max, choices=schema.choices)
        for number, item in enumerate(value):
            _check_value(entry, item, file, f"{field}[{number}]", kind)
        return
    if schema.choices is not None and value not in schema.choices:
        raise kind(f"expected {one_of(schema.choices, value)}", file=file, field=field, value=value)
    size = value if schema.type in ("int", "float") else None
    if schema.type in ("str", "path", "list", "table"):
        size = len(value)
    unit = "" if schema.type in ("int", "float") else " entries or characters"
    if size is not None and schema.min is not None and size < schema.min:
        raise kind(f"expected at least {schema.min:g}{unit}", file=file, field=field, value=value)
    if size is not None and schema.max is not None and size > schema.max:
        raise kind(f"expected at most {schema.max:g}{unit}", file=file, field=field, value=value)


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind in ("bool", "any")
    return isinstance(value, _PYTHON_TYPES[kind])


def _check_fields(
    fields: Mapping[str, _Field],
    data: Mapping[str, Any],
    path: str | os.PathLike[str],
    prefix: str,
) -> None:
    """Check names, types and choices of a table of a manifest."""
    for name, value in data.items():
        field = fields.get(name)
        if field is None:
            raise ManifestError(
                f"expected {one_of(fields, name)}", file=path, field=prefix + name, value=value
            )
        if field.kind != "any" and not _is_a(value, field.kind):
            raise ManifestError(
                f"expected a value of type {field.kind}",
                file=path,
                field=prefix + name,
                value=value,
            )
        is_list = field.kind == "list"
        for number, item in enumerate(value if is_list else (value,)):
            place = f"{prefix}{name}[{number}]" if is_list else prefix + name
            if field.choices and item not in field.choices:
                raise ManifestError(
                    f"expected {one_of(field.choices, item)}", file=path, field=place, value=item
                )
            if is_list and name != "choices" and not isinstance(item, str):
                raise ManifestError(
                    "expected a value of type str", file=path, field=place, value=item
                )
    for name, field in fields.items():
        if field.is_required and name not in data:
            raise ManifestError(
                f"expected a value of type {field.kind}; there is no default",
                file=path,
                field=prefix + name,
            )
