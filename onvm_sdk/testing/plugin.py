"""pytest plugin: the fixtures `nf_runner`, `nf_manager` and `golden`, and their options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onvm_sdk.testing.managed import Managed
    from onvm_sdk.testing.runner import Runner


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("onvm")
    group.addoption(
        "--onvm-nf", action="append", default=[], metavar="NAME", help="installed NF to check"
    )
    group.addoption(
        "--onvm-nf-config", default=None, metavar="FILE", help="configuration of the NF to check"
    )
    group.addoption(
        "--onvm-update-golden",
        action="store_true",
        help="write golden captures instead of comparing with them",
    )


@pytest.fixture
def nf_manager() -> Callable[..., Managed]:
    """Run NFs in a real manager: `onvm_sdk.testing.managed.run_managed`."""
    from onvm_sdk.testing.managed import run_managed

    return run_managed


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Iterable[bytes], str], None]:
    """Compare packets with a golden capture beside the test file: ``golden(packets, "x.pcap")``."""
    from onvm_sdk.testing.golden import check_golden

    update = bool(request.config.getoption("--onvm-update-golden"))
    folder = request.path.parent

    def check(packets: Iterable[bytes], name: str) -> None:
        check_golden(packets, folder / name, update=update)

    return check


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
