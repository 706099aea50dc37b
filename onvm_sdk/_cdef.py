# SPDX-License-Identifier: Apache-2.0
"""The C source of a cffi module, made from the headers that it binds.

The preprocessor reads the headers, so constants, macros and conditions count as they do in C. A
module gets the functions and integer constants of the headers it names, and the types these need,
whichever of our headers has them. Inline functions and what system headers declare stay out.

``ONVM_CDEF`` is defined meanwhile: a header can show cffi what C must not see, such as
``extern "Python"``.

Only the standard library and cffi are imported: the build of onvm runs this file by its path.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["add_arguments", "make_cdef", "write_module"]

_LINE = re.compile(r'# \d+ "(?P<file>[^"]*)"(?P<flags>[ \d]*)')
_DEFINE = re.compile(r"#define (?P<name>\w+)(?P<arguments>\()?\s*(?P<body>.*)")
_TOKEN = re.compile(r'"[^"]*"|\w+|<<|>>|\S')
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)[uUlL]*")
_OPERATORS = frozenset({"+", "-", "*", "/", "%", "&", "|", "^", "~", "(", ")", "<<", ">>"})
_TAGGED = frozenset({"struct", "union", "enum"})
_SYSTEM_HEADER = "3"


@dataclass(frozen=True, slots=True)
class _Declaration:
    """One declaration at file level, as tokens; `file` is where it stands."""

    file: str
    tokens: tuple[str, ...]
    is_system: bool
    is_exported: bool
    """A shared library shows it: it has the attribute ``visibility("default")``."""

    def gives(self) -> Iterator[str]:
        """Names that others need it for: a tag with its keyword, a typedef, enumerators."""
        tokens = self.tokens[1:] if self.tokens[0] == "typedef" else self.tokens
        if tokens[0] in _TAGGED and tokens[2:3] == ("{",):
            yield f"{tokens[0]} {tokens[1]}"
        if tokens[0] == "enum":
            yield from (
                name
                for before, name in itertools.pairwise(tokens)
                if before in ("{", ",") and name != "}"
            )
        if self.tokens[0] == "typedef":
            yield _typedef_name(tokens[tokens.index("}") + 1 :] if "{" in tokens else tokens)

    def needs(self) -> Iterator[str]:
        """Names it may need, in the form of `gives`."""
        for before, token in itertools.pairwise(("", *self.tokens)):
            yield f"{before} {token}" if before in _TAGGED else token

    def is_type(self) -> bool:
        """True if it defines a struct, union or enum."""
        return self.tokens[0] in _TAGGED and "{" in self.tokens

    def is_inline(self) -> bool:
        return "static" in self.tokens or self.tokens[-1] == "}"

    def text(self) -> str:
        """The declaration as cffi reads it."""
        text = " ".join(self.tokens)
        aligned = re.sub(r"_Alignas \( \d+ \)", "", text)
        # The compiler knows where members with an alignment of their own lie; cffi would guess.
        return text if text == aligned else aligned[: aligned.rindex("}")] + "...; } ;"


def _typedef_name(tokens: Sequence[str]) -> str:
    for before, token, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if (before, token) == ("(", "*"):
            return name  # of a function pointer
    return tokens[tokens.index("[") - 1 if "[" in tokens else -2]


def make_cdef(
    headers: Sequence[str],
    folders: Sequence[str] = (),
    *,
    compiler: str | None = None,
    is_exported_only: bool = False,
    depfile: tuple[str, str] | None = None,
) -> str:
    """Give the declarations of `headers` as cffi reads them.

    Args:
        headers: names, as in ``#include``.
        folders: where to look for them.
        compiler: command; None: that of ``$CC``, or ``cc``.
        is_exported_only: leave functions out that a shared library hides.
        depfile: file for make's rule of what was read, and the target of that rule.
    """
    command = [
        *shlex.split(compiler or os.environ.get("CC") or "cc"),
        *("-std=gnu11", "-E", "-dD", "-DONVM_CDEF", "-x", "c"),
        *(f"-I{folder}" for folder in folders),
        *(("-MD", "-MF", depfile[0], "-MT", depfile[1]) if depfile else ()),
        "-",
    ]
    text = subprocess.run(
        command, input=_includes(headers), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    declarations, macros = _read(text)
    named = {declaration.file for declaration in declarations} | {file for file, _, _ in macros}
    named = {file for file in named if any(_is_named(file, header) for header in headers)}
    constants = [
        f"#define {name} ..."
        for file, name, body in macros
        if file in named and _is_integer(body, {name: body for _, name, body in macros})
    ]
    kept = _with_types(declarations, named, is_exported_only=is_exported_only)
    return "\n".join([*constants, *(declaration.text() for declaration in kept), ""])


def write_module(module: str, cdef: str, headers: Sequence[str], output: Path) -> None:
    """Write the C source of a cffi module with these declarations."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(cdef)
    ffi.set_source(module, _includes(headers))
    ffi.emit_c_code(str(output))


def _includes(headers: Iterable[str]) -> str:
    return "".join(f'#include "{header}"\n' for header in headers)


def _is_named(file: str, header: str) -> bool:
    return file == header or file.endswith(f"/{header}")


def _read(text: str) -> tuple[list[_Declaration], list[tuple[str, str, str]]]:
    """Split preprocessed text into declarations and (file, name, body) of macros."""
    file, is_system, macros = "", False, []
    parts: list[tuple[str, bool, list[str]]] = []
    for line in text.splitlines():
        if match := _LINE.match(line):
            file, is_system = match["file"], _SYSTEM_HEADER in match["flags"].split()
        elif match := _DEFINE.match(line):
            if match["arguments"] is None and match["body"]:
                macros.append((file, match["name"], match["body"]))
        elif line.strip() and not line.startswith("#"):
            parts.append((file, is_system, _TOKEN.findall(line)))
    return list(_declarations(parts)), macros


def _declarations(parts: Iterable[tuple[str, bool, list[str]]]) -> Iterator[_Declaration]:
    tokens: list[str] = []
    depth = 0
    for file, is_system, line in parts:
        for token in line:
            is_body = token == "{" and depth == 0 and tokens[-1:] == [")"]
            tokens.append(token if not is_body else "{body")
            depth += (token in "({[") - (token in ")}]")
            if depth == 0 and (token == ";" or (token == "}" and "{body" in tokens)):
                declaration, is_exported = _without_attributes(tokens)
                if declaration[0] not in ("_Static_assert", ";"):
                    yield _Declaration(file, declaration, is_system, is_exported)
                tokens = []


def _without_attributes(tokens: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Drop ``__attribute__((...))``; say whether one exports the declaration."""
    kept: list[str] = []
    is_exported, depth, at = False, 0, 0
    while at < len(tokens):
        if tokens[at] not in ("__attribute__", "__extension__"):
            kept.append(tokens[at])
        elif tokens[at] == "__attribute__":
            while True:
                at += 1
                depth += (tokens[at] == "(") - (tokens[at] == ")")
                is_exported |= tokens[at] == '"default"'
                if depth == 0:
                    break
        at += 1
    return tuple(kept), is_exported


def _is_integer(body: str, macros: dict[str, str]) -> bool:
    """True if a macro is an integer constant."""
    names = set()
    for token in _TOKEN.findall(body):
        if token in macros:
            names.add(token)
        elif token not in _OPERATORS and not _NUMBER.fullmatch(token):
            return False
    rest = {name: value for name, value in macros.items() if name not in names}
    return all(_is_integer(macros[name], rest) for name in names)


def _with_types(
    declarations: Sequence[_Declaration], named: set[str], *, is_exported_only: bool
) -> list[_Declaration]:
    """Keep what the named headers declare, and the types this needs, in their order."""
    ours = [each for each in declarations if not each.is_system and not each.is_inline()]
    giver = {name: number for number, each in enumerate(ours) for name in each.gives()}
    wanted = [
        number
        for number, each in enumerate(ours)
        if each.file in named
        and (
            each.is_exported
            or not is_exported_only
            or '"Python"' in each.tokens
            or each.is_type()
            or each.tokens[0] == "typedef"
        )
    ]
    kept = set(wanted)
    while wanted:
        for name in ours[wanted.pop()].needs():
            number = giver.get(name)
            if number is not None and number not in kept:
                kept.add(number)
                wanted.append(number)
    return [each for number, each in enumerate(ours) if number in kept]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("headers", nargs="*", help="headers to bind, as in #include")
    parser.add_argument(
        "-I",
        dest="folders",
        action="append",
        default=[],
        metavar="FOLDER",
        help="where headers are",
    )
    parser.add_argument("-o", dest="output", type=Path, help="file to write")
    parser.add_argument(
        "--exported",
        action="store_true",
        help="leave functions out that are not marked ONVM_EXPORT",
    )
    parser.add_argument("--cc", help="C compiler; default: $CC, or cc")
    parser.add_argument("--depfile", help="write make's rule of the headers that were read")


def run(module: str, arguments: argparse.Namespace) -> None:
    """Write the module that the options of `add_arguments` describe."""
    output: Path = arguments.output
    cdef = make_cdef(
        arguments.headers,
        arguments.folders,
        compiler=arguments.cc,
        is_exported_only=arguments.exported,
        depfile=(arguments.depfile, str(output)) if arguments.depfile else None,
    )
    write_module(module, cdef, arguments.headers, output)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="name of the module, with its package")
    add_arguments(parser)
    arguments = parser.parse_args()
    run(arguments.module, arguments)


if __name__ == "__main__":
    _main()
