"""What a user may have meant."""

from __future__ import annotations

import pytest

from onvm_sdk.spelling import did_you_mean, one_of


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("acept", "; did you mean 'accept'?"),
        ("DROP", "; did you mean 'drop'?"),
        ("drop", ""),  # it is known: something else is wrong
        ("nothing-like-it", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_the_nearest_word_is_a_hint(given: object, hint: str) -> None:
    assert did_you_mean(["accept", "drop"], given) == hint
    assert one_of(["accept", "drop"], given) == f"one of accept, drop{hint}"
