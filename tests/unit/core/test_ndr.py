"""The search for NDR and PDR, with a chain whose limits are known; percentiles of latency."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from onvm_core.bench.ndr.latency import percentiles_us
from onvm_core.bench.ndr.search import Count, search
from onvm_core.bench.ndr.suite import check_ndr
from onvm_sdk.errors import ConfigError, OnvmError

ONVM = [sys.executable, "-P", "-m", "onvm_core.cli"]
BOUNDS_NS = [2 ** (5 + n / 4) for n in range(128)]


def onvm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ONVM, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def chain_of(
    lossless_pps: float, limit_pps: float, limit_of_generator_pps: float = 1e12
) -> Callable[[float, float], Count]:
    """A chain that loses 0.1 % above one rate, and all that is above another."""

    def trial(rate_pps: float, seconds: float) -> Count:
        intended = round(rate_pps * seconds)
        offered = min(intended, round(limit_of_generator_pps * seconds))
        lost = max(offered - round(limit_pps * seconds), 0)
        if rate_pps > lossless_pps:
            lost = max(lost, -(-offered // 1000))
        return Count(intended=intended, offered=offered, lost=lost)

    return trial


def test_search_finds_both_rates_to_a_hundredth() -> None:
    pytest.importorskip("MLRsearch")
    rates = search(chain_of(700_000, 2_000_000), 0.01)
    assert 0.99 * 700_000 <= rates.ndr <= 700_000
    # At the bound 0.5 % are lost; the rate is what arrives.
    assert 0.985 * 2_000_000 <= rates.pdr <= 1.001 * 2_000_000
    assert 10 < rates.trials < 300


def test_what_the_generator_cannot_send_is_no_throughput() -> None:
    pytest.importorskip("MLRsearch")
    rates = search(chain_of(5e6, 5e6, limit_of_generator_pps=1e6), 0.01)
    assert 0.99e6 <= rates.ndr <= 1e6


def test_a_chain_that_always_loses_has_no_rate() -> None:
    pytest.importorskip("MLRsearch")
    with pytest.raises(OnvmError, match="ndr: packets are lost even at 1,000 a second"):
        search(chain_of(0, 0), 0.01)


def test_percentiles_are_those_of_the_histogram() -> None:
    pytest.importorskip("hdrh")
    histogram = [0] * 128
    histogram[20] = 9000  # 1024 to 1218 ns
    histogram[40] = 980  # 32.8 to 39 us
    histogram[60] = 20  # 1.05 to 1.25 ms
    found = percentiles_us(histogram, BOUNDS_NS)
    assert 1.024 <= found["p50"] <= 1.218
    assert 1.024 <= found["p90"] <= 1.218
    assert 32.7 <= found["p99"] <= 39.1
    assert 1048 <= found["p99_9"] <= found["max"] <= 1250


def test_no_packets_have_no_percentiles() -> None:
    pytest.importorskip("hdrh")
    assert set(percentiles_us([0] * 128, BOUNDS_NS).values()) == {0.0}


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"MLRsearch; run: pip install 'onvm\[bench\]'"):
        check_ndr(())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["bench", "ndr", "--chain", "nope"], "error: --chain: 'nope': expected an installed NF: "),
        (["bench", "ndr", "--chain", ""], "error: --chain: '': expected an installed NF: "),
        (["bench", "hop", "--chain", "nat"], "error: --chain: 'nat': expected it with the suite "),
        (["bench", "hop", "--csv", "/nope/a"], "error: --csv: '/nope/a': expected a file in an "),
        (["bench", "--compare", "/nope/a", "/nope/b"], "error: /nope/a: expected a file that can "),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], line: str) -> None:
    if arguments[1] == "ndr":
        pytest.importorskip("MLRsearch")
        pytest.importorskip("hdrh")
    done = onvm(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
