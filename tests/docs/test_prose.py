"""Texts are plain English, and use the words of docs/words.md.

This covers the manuals, the help of every command and all docstrings of the core and the SDK. It
leaves out code, quoted words and headings. Comments of all code, C and Python, keep to the same
words.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import onvm_sdk
from onvm_core.cli.app import build_app
from onvm_core.plugins import CliCommand, load_plugins
from onvm_sdk.testing import Runner, run

ROOT = Path(__file__).parents[2]
PHRASES = {
    "anew": "again",
    "nobody": "no … (name it)",
    "somebody": "a user, an agent, … (name it)",
    "anybody": "any … (name it)",
    "whoever": "a sentence with a subject",
    "whence": "from where",
    "one's own": "your own",
    "for ever": "forever",
}
"""Phrases that read as translated, and what to write instead."""
OLD_WORDS = {
    "accuse": "report a fault",
    "census": "instance counts",
    "courier": "state server",
    "edition": "plugin version",
    "errand": "state transfer",
    "heir": "successor",
    "heirloom": "adopted instance",
    "housekeeper": "control thread",
    "keeper": "session thread, control thread",
    "lane": "worker port",
    "mover": "state sender",
    "stopwatch": "startup times",
    "ticket": "reservation",
    "welcome": "attach, add",
}
"""Words that have been replaced, by those of docs/words.md."""
STARTS = re.compile(r"(?:Who|Whom|Whoever|What|Which|Whose|Whether) [a-z`]")
"""A sentence that begins so is a question, or has a relative clause as its subject."""
OPENINGS = re.compile(r"(?:Who|Whom|Whoever|What|Which|Whose|Whether|How|Where|When|Why)\b")
"""A docstring that begins so describes a question instead of naming a thing or an action."""


def manuals() -> Iterator[Path]:
    for pattern in ("*.md", "docs/**/*.md", "plugins/*/README.md", "changelog.d/*.md"):
        yield from sorted(ROOT.glob(pattern))
    yield from sorted((ROOT / "cookiecutter-nf").glob("*/README.md"))


def prose_of(markdown: str) -> Iterator[str]:
    """Paragraphs, list items and cells of tables, without code, quotes and headings."""
    text = re.sub(r"^ *```.*?^ *```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = text.partition("\n## Words that changed")[0]
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"{%.*?%}|^#+ .*$", "", text, flags=re.MULTILINE)
    for block in re.split(r"\n\s*\n|\n(?= *[*-] | *\d+\. )", text):
        if block.lstrip().startswith("|"):
            yield from (cell.strip() for row in block.splitlines() for cell in row.split("|"))
        else:
            yield " ".join(block.split())


def commands(command: Any, path: str = "onvm") -> Iterator[tuple[str, str]]:
    """Texts of a command's help, and of those below it."""
    yield path, command.help or ""
    for param in command.params:
        yield f"{path} {param.name}", getattr(param, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def docstrings() -> Iterator[tuple[str, str]]:
    """Docstrings of the public names of the SDK, and of their public methods."""
    public = [getattr(onvm_sdk, name) for name in onvm_sdk.__all__]
    for thing in [*public, Runner, run]:
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        name = thing.__qualname__
        yield name, inspect.getdoc(thing) or ""
        yield f"{thing.__module__} of {name}", inspect.getdoc(inspect.getmodule(thing)) or ""
        for attribute, value in vars(thing).items() if inspect.isclass(thing) else ():
            if not attribute.startswith("_"):
                yield f"{name}.{attribute}", inspect.getdoc(value) or ""


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings of a module, its classes, functions and attributes, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, inspect.cleandoc(text)


def sources() -> Iterator[tuple[str, str]]:
    """All docstrings of the core and the SDK, public or not, with file and line."""
    for package in ("onvm_core", "onvm_sdk"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for line, text in strings(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(ROOT)}:{line}", text


def comments() -> Iterator[tuple[str, str]]:
    """All comments, and docstrings of plugins and tests, with file and line."""
    for path in sorted(ROOT.glob("native/**/*.[ch]")) + sorted(
        ROOT.glob("plugins/*/native/*.[ch]")
    ):
        source = path.read_text(encoding="utf-8")
        for match in re.finditer(r"/\*.*?\*/", source, re.DOTALL):
            line = source.count("\n", 0, match.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}", re.sub(r"\s*\n\s*\*?\s*", " ", match[0])
    folders = ("onvm_core", "onvm_sdk", "plugins", "tests", "benchmarks", "packaging")
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        found = [(line, " ".join(text.split())) for line, text in strings(source)]
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                found.append((token.start[0], token.string))
        for line, text in found:
            yield f"{path.relative_to(ROOT)}:{line}", text


def texts() -> Iterator[tuple[str, str]]:
    """Each paragraph, with where it stands."""
    for path in manuals():
        for paragraph in prose_of(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), paragraph
    offers = load_plugins().offers("onvm_cli_commands").values()
    app = build_app([one for one in offers if isinstance(one, CliCommand)], None)
    for place, text in [*commands(typer.main.get_command(app)), *docstrings(), *DOCSTRINGS]:
        for paragraph in prose_of(text.replace("``", "`")):
            yield place, paragraph


DOCSTRINGS = list(sources())
TEXTS = [(place, text) for place, text in texts() if text]
COMMENTS = [
    (place, re.sub(r"`[^`]*`", "CODE", text))
    for place, text in comments()
    if not place.startswith("tests/docs/test_prose.py")
]


def found(pattern: str) -> list[str]:
    matcher = re.compile(pattern, re.IGNORECASE)
    return [f"{place}: {text}" for place, text in TEXTS + COMMENTS if matcher.search(text)]


def test_texts_are_found() -> None:
    places = {place for place, _ in TEXTS}
    wanted = {"README.md", "docs/cluster.md", "docs/decisions/credits.md", "onvm run", "Burst.drop"}
    assert wanted <= places
    assert len(TEXTS) > 1000
    assert len(DOCSTRINGS) > 2000
    assert len(COMMENTS) > 5000


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrase_is_avoided(phrase: str) -> None:
    assert found(rf"\b{re.escape(phrase)}\b") == [], f"write: {PHRASES[phrase]}"


@pytest.mark.parametrize("word", OLD_WORDS)
def test_old_word_is_gone(word: str) -> None:
    assert found(rf"\b{word}s?\b") == [], f"write: {OLD_WORDS[word]}"


def test_sentences_have_a_subject() -> None:
    """No sentence begins with a relative clause; questions may."""
    wrong = [
        f"{place}: {sentence}"
        for place, text in TEXTS
        for sentence in re.split(r"(?<=[.?!:]) +", text)
        if STARTS.match(sentence) and not sentence.endswith("?")
    ]
    assert wrong == []


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    assert [f"{place}: {text}" for place, text in DOCSTRINGS if OPENINGS.match(text)] == []


def test_strings() -> None:
    source = '"""A module."""\nA = 1\n"""An\n    attribute."""\ndef f():\n    """A function."""\n'
    assert sorted(strings(source)) == [(1, "A module."), (3, "An\nattribute."), (6, "A function.")]


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# What it is\n\nAn *NF*.", ["An *NF*."]),
        ("```\ncode anew\n```\n\nText `anew`.", ["Text CODE."]),
        ("* one\n* two", ["* one", "* two"]),
        ("| a | b |", ["a", "b"]),
    ],
)
def test_prose_of(markdown: str, expected: list[str]) -> None:
    assert [text for text in prose_of(markdown) if text] == expected
