"""All exceptions, as one tree.

OnvmError
├── ConfigError            a user's mistake; printed as one line, exit status 2
│   ├── ManifestError      an onvm-nf.toml with a mistake
│   └── PluginError        a plugin that is missing, broken or named twice
├── AttachError            an NF host and a manager did not come together
├── NativeError            a native call failed; carries its errno
│   └── TableFullError     a table has no room left
└── StaleViewError         a packet view was used after its burst had ended
"""

from __future__ import annotations

import errno as _errno
import os

__all__ = [
    "AttachError",
    "ConfigError",
    "ManifestError",
    "NativeError",
    "OnvmError",
    "PluginError",
    "StaleViewError",
    "TableFullError",
    "check",
]


class OnvmError(Exception):
    """Base class of every error that onvm raises on purpose."""


class ConfigError(OnvmError):
    """A user's mistake: names file, field, value and what was expected.

    Args:
        expected: the end of the message, which begins with "expected ".
        file: the file or command-line option with the mistake, if any.
        field: dotted path of the field in it, if any.
        value: the wrong value; None leaves it out of the message.
    """

    def __init__(
        self,
        expected: str,
        *,
        file: str | os.PathLike[str] | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        self.expected = expected
        self.file = None if file is None else os.fspath(file)
        self.field = field
        self.value = value
        place = ": ".join(part for part in (self.file, field) if part)
        found = "" if value is None else f"{value!r}: "
        super().__init__(f"{place}: {found}{expected}" if place else f"{found}{expected}")


class ManifestError(ConfigError):
    """An ``onvm-nf.toml`` with a mistake."""


class PluginError(ConfigError):
    """A plugin that is missing, broken or named twice."""


class AttachError(OnvmError):
    """An NF host and a manager did not come together."""


class NativeError(OnvmError):
    """A native call failed.

    Args:
        number: the errno, positive.
        action: the operation that failed, as in "add flow to table 'nat'".
    """

    def __init__(self, number: int, action: str) -> None:
        self.errno = number
        super().__init__(f"{action}: {os.strerror(number)}")


class TableFullError(NativeError):
    """A table has no room left."""


class StaleViewError(OnvmError):
    """A packet view was used after its burst had ended."""


def check(result: int, action: str) -> int:
    """Turn a native ``-errno`` into an exception.

    Returns:
        `result`, when it is 0 or more.

    Raises:
        NativeError: `result` is below 0; the narrowest class that fits.
    """
    if result >= 0:
        return result
    kind = TableFullError if -result == _errno.ENOSPC else NativeError
    raise kind(-result, action)
