"""The difference between two files of a manager, as people and programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from onvm_core.manager.api.config_messages import Difference
from onvm_core.manager.config.nf_config import NfSettings
from onvm_core.manager.config.onvm_toml import Config
from onvm_sdk.errors import ConfigError

__all__ = ["check_fixed", "difference"]

VALUE_LETTERS = 40
_FIXED = ("manager", "dataplane", "launchers", "fused", "exporters", "faults")
_FIXED_OF_NF = ("plugin", "launcher", "affinity")
_DIRECT = bool | int | float | str


def check_fixed(before: Config, after: Config, path: Path) -> None:
    """Check that a file changes nothing that only a restart can change.

    Raises:
        ConfigError: it does; carries the first such field.
    """
    for section in _FIXED:
        _check_same(getattr(before, section), getattr(after, section), section, path)
    for name in _names(before.ports, after.ports):
        old, new = before.ports.get(name), after.ports.get(name)
        if any(one is not None and one.slow_path for one in (old, new)):  # a tap of the host
            _check_same(old, new, f"ports.{name}", path)
    for name in before.nfs.keys() & after.nfs.keys():
        for key in _FIXED_OF_NF:
            olds, news = getattr(before.nfs[name], key), getattr(after.nfs[name], key)
            _check_same(olds, news, f"nfs.{name}.{key}", path)


def _check_same(before: Any, after: Any, field: str, path: Path) -> None:
    if before == after:
        return
    if isinstance(before, msgspec.Struct):
        before, after = msgspec.structs.asdict(before), msgspec.structs.asdict(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            _check_same(before.get(key), after.get(key), f"{field}.{key}", path)
        return
    told = "none" if before in (None, [], "") else _text(before)
    raise ConfigError(
        f"expected {told}, as at the start: it changes only with a restart",
        file=path,
        field=field,
        value=after if isinstance(after, _DIRECT) else None,
    )


def difference(
    before: Config,
    after: Config,
    settings: Mapping[str, tuple[NfSettings, NfSettings]],
) -> list[Difference]:
    """All that differs between two checked files.

    Args:
        settings: the configurations of tables before and after, where they differ.
    """
    found: list[Difference] = []
    for name in _names(before.ports, after.ports):
        found += _tables(f"ports.{name}", before.ports.get(name), after.ports.get(name), "uri")
    for name in _names(before.nfs, after.nfs):
        old, new = before.nfs.get(name), after.nfs.get(name)
        if old is None or new is None:
            kept = new or old
            count = "" if kept is None else f"{kept.instances} instances"
            shown = [None if one is None else count for one in (old, new)]
            found.append(_one(f"nfs.{name}", *shown))
            continue
        found += _values(
            f"nfs.{name}",
            {"instances": old.instances, "fragments": old.fragments},
            {"instances": new.instances, "fragments": new.fragments},
        )
        if name in settings:
            found += _settings(f"nfs.{name}.config", *settings[name])
    for name in settings.keys() - after.nfs.keys():  # of instances by command
        found += _settings(f"nfs.{name}.config", *settings[name])
    for name in _names(before.chains, after.chains):
        found += _tables(
            f"chains.{name}", before.chains.get(name), after.chains.get(name), "services"
        )
    for name in _names(before.scale, after.scale):
        found += _tables(f"scale.{name}", before.scale.get(name), after.scale.get(name), "max")
    return found


def _names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [*before, *(name for name in after if name not in before)]


def _one(place: str, before: str | None, after: str | None) -> Difference:
    action: Literal["added", "removed", "changed"] = (
        "added" if before is None else "removed" if after is None else "changed"
    )
    return Difference(place, action, before or "", after or "")


def _tables(
    place: str, before: msgspec.Struct | None, after: msgspec.Struct | None, main: str
) -> list[Difference]:
    """Compare two tables; one that is added or removed is shown by its main value."""
    if before is not None and after is not None:
        return _values(place, msgspec.to_builtins(before), msgspec.to_builtins(after))
    shown = [None if one is None else _text(getattr(one, main)) for one in (before, after)]
    return [] if before is after else [_one(place, *shown)]


def _values(place: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(f"{place}.{key}", "changed", _text(before.get(key)), _text(after.get(key)))
        for key in _names(before, after)
        if before.get(key) != after.get(key)
    ]


def _settings(place: str, before: NfSettings, after: NfSettings) -> list[Difference]:
    found = _values(place, before.values, after.values)
    shown = {one.place for one in found}
    for key, value in after.values.items():
        path = str(value)
        old, new = before.files.get(path), after.files.get(path)
        if f"{place}.{key}" not in shown and old != new:
            found.append(Difference(f"{place}.{key}", "changed", _lines(old), _lines(new)))
    if not found and before.path != after.path:
        found.append(Difference(place, "changed", str(before.path), str(after.path)))
    return found


def _lines(content: bytes | None) -> str:
    return "none" if content is None else f"{content.count(b'%c' % 10)} lines"


def _text(value: Any) -> str:
    """A value in at most `VALUE_LETTERS` letters; of long ones, how long they are."""
    if value is None:
        return "none"
    if isinstance(value, list | dict) and len(str(value)) > VALUE_LETTERS:
        return f"{len(value)} entries"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= VALUE_LETTERS else f"{text[: VALUE_LETTERS - 1]}…"
