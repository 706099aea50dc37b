"""One line for a wrong command line: ``FIELD: 'VALUE': expected …; see: COMMAND --help``.

The library that reads command lines raises a class for each kind of mistake, with texts that change
from version to version. Classes and fields have stayed the same, so the lines are made from them.
The expected value is taken from the text, or the text is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from onvm_sdk.errors import ConfigError
from onvm_sdk.spelling import did_you_mean

__all__ = ["usage_line"]

_EXPECTED = (
    (re.compile(r"valid int(?:eger)?\b"), r"expected an integer"),
    (re.compile(r"valid (?:number|float)\b"), r"expected a number"),
    (re.compile(r"greater than or equal to (\S+)"), r"expected at least \1"),
    (re.compile(r"less than or equal to (\S+)"), r"expected at most \1"),
    (re.compile(r"greater than (\S+)"), r"expected more than \1"),
    (re.compile(r"less than (\S+)"), r"expected less than \1"),
    (re.compile(r"in the range x>=(\S+)"), r"expected at least \1"),
    (re.compile(r"in the range x<=(\S+)"), r"expected at most \1"),
    (re.compile(r"in the range x>(\S+)"), r"expected more than \1"),
    (re.compile(r"in the range x<(\S+)"), r"expected less than \1"),
    (re.compile(r"in the range (\S+?)<=x<=(\S+)"), r"expected \1 to \2"),
    (re.compile(r"is not one of (.+)"), r"expected one of \1"),
)


def usage_line(error: Any, arguments: Sequence[str]) -> str:
    """The line that explains the mistake in `arguments`; "" after help, which it prints instead.

    Args:
        error: a usage error of typer, or of the click below it.
    """
    command = error.ctx.command_path if error.ctx is not None else "onvm"
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        print(error.format_message())
        return ""
    if not error.format_message():  # an older version, which has printed it
        return ""
    return f"{_mistake(error, command, arguments)}; see: {command} --help"


def _mistake(error: Any, command: str, arguments: Sequence[str]) -> ConfigError:
    kind = type(error).__name__
    if kind == "NoSuchOption":
        near = ", ".join(sorted(error.possibilities or ()))
        hint = f"; did you mean {near}?" if near else ""
        return ConfigError(f"expected an option of {command}{hint}", field=error.option_name)
    if kind == "BadOptionUsage":
        return ConfigError("expected a value", field=error.option_name)
    if getattr(error, "param", None) is None:
        return _bad_command(error, command)
    return _missing(error.param) if kind == "MissingParameter" else _bad_value(error, arguments)


def _bad_command(error: Any, command: str) -> ConfigError:
    message = error.format_message()
    quoted = re.search(r"'([^']*)'|\(([^)]*)\)\.?$", message)
    value = next(filter(None, quoted.groups()), "") if quoted else None
    if "extra argument" in message:
        return ConfigError("expected no further argument", field=command, value=value)
    if message.startswith("No such command"):
        names = error.ctx.command.list_commands(error.ctx)
        hint = did_you_mean(names, value)
        return ConfigError(f"expected a command{hint}", field=command, value=value)
    return ConfigError(f"expected other arguments: {_plain(message)}", field=command)


def _missing(param: Any) -> ConfigError:
    metavar = param.metavar or param.name.upper()
    if param.param_type_name == "argument":
        return ConfigError("expected one more argument", field=metavar)
    return ConfigError(f"expected {metavar}", field=param.opts[0])


def _bad_value(error: Any, arguments: Sequence[str]) -> ConfigError:
    param = error.param
    is_option = param.param_type_name == "option"
    field = param.opts[0] if is_option else (param.metavar or param.name.upper())
    value = _value_of([*param.opts, *param.secondary_opts], arguments) if is_option else None
    for pattern, expected in _EXPECTED:
        found = pattern.search(error.message)
        if found:
            text = found.expand(expected).replace("'", "").rstrip(".")
            return ConfigError(text, field=field, value=value)
    return ConfigError(f"expected another value: {_plain(error.message)}", field=field, value=value)


def _plain(message: str) -> str:
    message = message.rstrip(".")
    return message[:1].lower() + message[1:]


def _value_of(options: Sequence[str], arguments: Sequence[str]) -> str | None:
    """The value that one of these spellings of an option has on the command line."""
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in options and equals:
            return value
        if option in options and index + 1 < len(arguments):
            return arguments[index + 1]
    return None
