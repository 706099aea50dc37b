"""Write the values of a TOML table back as TOML; the standard library only reads it."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["format_toml"]


def format_toml(table: Mapping[str, Any]) -> str:
    """The lines of a table; `tomllib` reads a table equal to `table` from them."""
    return "".join(f"{_string(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:  # noqa: PLR0911 -- one for each type of TOML
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_string(k)} = {_value(v)}' for k, v in value.items())}}}"
    return f"[{', '.join(_value(item) for item in value)}]"


def _string(text: str) -> str:
    # JSON's escapes are TOML's, except that TOML wants DEL escaped and JSON does not.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
