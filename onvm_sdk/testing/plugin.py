"""pytest plugin: the fixture `nf_runner` and the option --onvm-nf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onvm_sdk.testing.runner import Runner


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("onvm")
    group.addoption(
        "--onvm-nf", action="append", default=[], metavar="NAME", help="installed NF to check"
    )
    group.addoption(
        "--onvm-nf-config", default=None, metavar="FILE", help="configuration of the NF to check"
    )


@pytest.fixture
def nf_runner() -> Iterator[Callable[..., Runner]]:
    """Make runners (`onvm_sdk.testing.Runner`), and tear their NFs down after the test."""
    from onvm_sdk.testing.runner import Runner

    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Runner:
            return stack.enter_context(Runner(*arguments, **options))

        yield make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "onvm_nf" in metafunc.fixturenames:
        metafunc.parametrize("onvm_nf", metafunc.config.getoption("--onvm-nf"))
