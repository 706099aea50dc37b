"""The command line of an NF host."""

from __future__ import annotations

from onvm_sdk.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

__all__ = ["Options"]


class Options:
    """The command line, parsed by hand, because argparse takes 3 ms of the 60."""

    HELP: ClassVar = {
        "--socket": ("PATH", "the manager's attach socket; required"),
        "--nf": (
            "NAMES",
            "NFs in chain order, with commas: installed ones or module:Class; required",
        ),
        "--config": ("NAME=FILE", "configuration of an NF; may be given several times"),
        "--instance": ("NAMES", "instance names, with commas"),
        "--service": ("NAMES", "service types, with commas, in place of those of the manifests"),
        "--burst-size": ("N", "packets to take at once, in place of the manifests' wish"),
        "--restore": ("FILE", "begin with the state of this snapshot"),
        "--snapshot": ("FILE", "write the state here when drained and at a clean end"),
        "--files-from-stdin": ("", "first unpack a tar archive from standard input, below /"),
        "--seccomp": ("BASE64", "filter for this process: a BPF program as linux/filter.h has it"),
        "--core": ("N", "core to run on"),
        "--leave-with-manager": ("", "end when the manager is gone"),
        "--check": ("", "set the NFs up and end: neither a manager nor packets"),
    }

    def __init__(self, arguments: Sequence[str]) -> None:
        self._values: dict[str, list[str]] = {}
        rest = list(arguments)
        while rest:
            name, equals, value = rest.pop(0).partition("=")
            if name in ("-h", "--help"):
                print(self.help())
                raise SystemExit(0)
            if name not in self.HELP:
                raise ConfigError(f"expected one of {', '.join(self.HELP)}", value=name)
            if self.HELP[name][0] and not equals:
                if not rest:
                    raise ConfigError("expected a value", field=name)
                value = rest.pop(0)
            self._values.setdefault(name, []).append(value)
        for name in ("--socket", "--nf"):
            if name not in self._values and (name == "--nf" or "--check" not in self._values):
                raise ConfigError("expected a value", field=name)

    def help(self) -> str:
        """Give the text of --help."""
        lines = ["usage: python -P -m onvm_sdk.runtime OPTIONS", ""]
        for name, (metavar, text) in self.HELP.items():
            lines.append(f"  {f'{name} {metavar}':24} {text}")
        return "\n".join(lines)

    def all(self, name: str) -> list[str]:
        """Give every value of an option."""
        return self._values.get(name, [])

    def last(self, name: str) -> str | None:
        """Give the last value of an option, None without one."""
        return self._values[name][-1] if name in self._values else None

    def number(self, name: str) -> int | None:
        """Give the last value of an option as a number, None without one."""
        text = self.last(name)
        if text is not None and not text.isdecimal():
            raise ConfigError("expected a number", field=name, value=text)
        return None if text is None else int(text)

    def names(self, name: str) -> list[str]:
        """Give the entries of a value with commas."""
        return (self.last(name) or "").split(",")
