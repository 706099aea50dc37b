"""The record of a benchmark, as ``onvm bench --json`` prints it."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec

from onvm_core.bench.line import BenchLine
from onvm_core.bench.record.environment import Environment
from onvm_sdk.errors import ConfigError

__all__ = ["BenchRecord", "check_csv", "read_record", "write_csv"]


class BenchRecord(msgspec.Struct, frozen=True):
    """Lines, and the environment in which they were measured."""

    environment: Environment
    lines: list[BenchLine]


def read_record(path: Path) -> BenchRecord:
    """Read what ``onvm bench --json`` printed.

    Raises:
        ConfigError: the file cannot be read, or is no such record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=BenchRecord)
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}", file=path
        ) from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"expected what onvm bench --json prints: {error}", file=path) from None


def check_csv(path: Path) -> None:
    """Check that a table can be written, before anything is measured.

    Raises:
        ConfigError: the folder is missing.
    """
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise ConfigError("expected a file in an existing folder", field="--csv", value=str(path))


def write_csv(record: BenchRecord, path: Path) -> None:
    """Write a row for each line: the columns of `BenchLine`, then those of the environment.

    Raises:
        ConfigError: the file cannot be written.
    """
    environment = msgspec.to_builtins(record.environment)
    columns = [*BenchLine.__struct_fields__, *environment]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for line in record.lines:
                writer.writerow(msgspec.to_builtins(line) | environment)
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be written: {error.strerror}",
            field="--csv",
            value=str(path),
        ) from None
