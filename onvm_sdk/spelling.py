"""Hints for words that are not known: the nearest known one."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "one_of"]


def one_of(known: Iterable[object], given: object = None) -> str:
    """Name the words that are known, and the one nearest to the `given` one.

    Returns:
        The part of an error behind "expected": ``one of drop, pass; did you mean 'drop'?``.
    """
    names = [str(name) for name in known]
    return f"one of {', '.join(names)}{did_you_mean(names, given)}"


def did_you_mean(known: Iterable[str], given: object) -> str:
    """Make the end of an error that asks for the nearest word: ``; did you mean 'drop'?``.

    Returns:
        "" if no word is near, or if `given` is known.
    """
    names = list(known)
    if not isinstance(given, str) or given in names:
        return ""
    import difflib  # takes milliseconds, and most words are right

    lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(given.lower(), lower, n=1)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""
