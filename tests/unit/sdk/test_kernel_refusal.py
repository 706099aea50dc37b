"""A kernel that cannot be compiled says so with the author's line, and what is wrong there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("numba")

from onvm_sdk import NetworkFunction, Verdict, kernel
from onvm_sdk.errors import PluginError
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import udp


def unknown_attribute(pkt: Any, state: Any) -> None:
    pkt.ipv4.tll -= 1  # the mistake


def unknown_method(pkt: Any, state: Any) -> None:
    if pkt.is_udp:
        pkt.dropp()  # the mistake


def read_only(pkt: Any, state: Any) -> None:
    pkt.ipv4.header_length = 6  # the mistake


def unknown_name(pkt: Any, state: Any) -> int:
    return undefined_here  # type: ignore[name-defined,no-any-return]  # noqa: F821  # the mistake


def _helper(pkt: Any) -> int:
    return 1


def plain_function(pkt: Any, state: Any) -> int:
    return _helper(pkt)  # the mistake


def prints(pkt: Any, state: Any) -> None:
    print(pkt.length)  # the mistake


def returns_bool(pkt: Any, state: Any) -> Any:
    return pkt.is_udp


KNOWN = [
    (unknown_attribute, "Unknown attribute 'tll' of type pkt.ipv4"),
    (unknown_method, "Unknown attribute 'dropp' of type pkt"),
    (read_only, "ipv4.header_length is read-only"),
    (unknown_name, "NameError: name 'undefined_here' is not defined"),
    (plain_function, "_helper is an ordinary function: mark it with @numba.njit"),
    (prints, "print() needs Python's lock"),
    (returns_bool, "it returns bool, expected a Verdict or None"),
]


def _runner(function: Callable[..., Any]) -> Runner:
    kind = type("Nf", (NetworkFunction,), {"process_packet": kernel(function)})
    return Runner(kind)


@pytest.mark.parametrize(
    ("function", "text"), KNOWN, ids=[function.__name__ for function, _ in KNOWN]
)
def test_refusal_names_file_line_and_mistake(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(PluginError) as raised:
        _runner(function)
    lines, first = inspect.getsourcelines(function)
    line = next((n for n, each in enumerate(lines, first) if "the mistake" in each), first)
    assert str(raised.value).startswith(f"{__file__}:{line}: {function.__name__}: expected a func")
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("number", [-1, 5, 77])
def test_a_number_that_is_no_verdict_is_an_error_of_the_author(number: int) -> None:
    def process(pkt: Any, state: Any) -> Any:
        return number

    with _runner(process) as runner, pytest.raises(TypeError, match=f"returned {number}, expect"):
        runner.run([udp("10.0.0.1", 1, "10.0.0.2", 2)])


@pytest.mark.parametrize("compiled", [True, False])
def test_a_reason_that_is_none_is_an_error_of_the_author(compiled: bool) -> None:
    def process(pkt: Any, state: Any) -> Any:
        return pkt.drop(70_000)

    kind = type("Nf", (NetworkFunction,), {"process_packet": kernel(process)})
    with Runner(kind, compiled=compiled) as runner, pytest.raises(OverflowError, match="below"):
        runner.run([udp("10.0.0.1", 1, "10.0.0.2", 2)])


@pytest.mark.parametrize("compiled", [True, False])
def test_values_are_cut_to_the_field(compiled: bool) -> None:
    def process(pkt: Any, state: Any) -> Any:
        pkt.ipv4.ttl = 300
        pkt.udp.dst_port = -1
        return Verdict.NEXT

    kind = type("Nf", (NetworkFunction,), {"process_packet": kernel(process)})
    with Runner(kind, compiled=compiled) as runner:
        (packet,) = runner.run([udp("10.0.0.1", 1, "10.0.0.2", 2)]).packets
    assert (packet[14 + 8], packet[36:38]) == (300 & 255, b"\xff\xff")
