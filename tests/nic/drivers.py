"""Each driver in machines of its own, and a table of what passed: ``make test-nic``.

Usage: drivers.py FOLDER [CARD...]; the folder keeps kernel and initrd for the next run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import CARDS, Machine, lacking, lacks_card, prepare

TIMEOUT_S = 600
"""Of one machine. All of them together take 10 minutes on two idle cores."""
ENOUGH = 18
"""Answers to 20 pings: a slow machine gives some too late."""
TRAFFIC = {"case": "traffic", "huge_pages": 64}
QUEUES = {"case": "queues", "huge_pages": 64}
"""Drivers whose emulated card has several queues and shares flows out to them."""
WITH_QUEUES = ("e1000e", "igb", "vmxnet3")
TROUBLE = {
    "unbound in use": {"case": "unbound_in_use"},
    "refusals": {"case": "refusals"},
}
SIZES = {
    "mtu 9000": {"case": "jumbo", "buffer_size": 16384, "huge_pages": 64},
    "killed": {"case": "killed"},
}
NO_IOMMU = {"case": "traffic", "driver": "uio_pci_generic", "huge_pages": 560}


def _passed(result: Mapping[str, Any]) -> bool:
    return (
        not result.get("error")
        and min(result["pings"], result["large_pings"]) >= ENOUGH
        and bool(result["is_whole"])
    )


def _jumbo(result: Mapping[str, Any]) -> bool:
    return (
        "set buffer_size =" in result["refusal"]
        and not result["error"]
        and result["large_pings"] >= ENOUGH
    )


def _unbound(result: Mapping[str, Any]) -> bool:
    return (
        not result["error"]
        and result["states"] == {"a": "up", "b": "gone"}
        and min(result["pings"], result["pings_plugged"], result["pings_again"]) >= ENOUGH
    )


def _killed(result: Mapping[str, Any]) -> bool:
    return not result["error"] and result["pings"] >= ENOUGH - 4


def _queues(result: Mapping[str, Any]) -> bool:
    return not result["error"] and result["pings"] >= ENOUGH and result["served"] == 32


def _refusals(result: Mapping[str, Any]) -> bool:
    return (
        "is bound to no driver; run:" in result["unbound"]
        and not result["first"]
        and "expected a card that is free" in result["held"]
        and not result["own_card"]
        and not result["noise"]
    )


CHECKS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "traffic": _passed,
    "queues": _queues,
    "jumbo": _jumbo,
    "unbound_in_use": _unbound,
    "killed": _killed,
    "refusals": _refusals,
}


def _machines(cards: Sequence[str]) -> list[tuple[str, int, dict[str, dict[str, Any]]]]:
    """Card, bits of the IOMMU, and cases by name."""
    made: list[tuple[str, int, dict[str, dict[str, Any]]]] = []
    for card in cards:
        passing = {"traffic": TRAFFIC}
        if card in WITH_QUEUES:
            passing["queues"] = QUEUES
        if card != "e1000e":
            made.append((card, 48, passing))
            continue
        made.append((card, 39, passing))
        made.append((card, 0, {"traffic": NO_IOMMU}))
        made.append((card, 48, SIZES))
        made.append((card, 48, TROUBLE))
    return made


def _show(card: str, bits: int, case: str, outcome: str, detail: str) -> None:
    iommu = f"{bits} bits" if bits else "none"
    print(f"{card:<11} {iommu:<8} {case:<15} {outcome:<8} {detail}", flush=True)


def main(folder: Path, cards: Sequence[str]) -> int:
    """Run all; how many cases failed."""
    if reason := lacking():
        print(f"skipped: {reason}")
        return 0
    try:
        prepare(folder)
    except RuntimeError as error:
        print(f"skipped: {error}")
        return 0
    failed = 0
    print(f"{'card':<11} {'IOMMU':<8} {'case':<15} {'outcome':<8}")
    for card, bits, cases in _machines(cards or list(CARDS)):
        if reason := lacks_card(card):
            _show(card, bits, "all", "skipped", reason)
            continue
        began = time.monotonic()
        plan = [{"name": name, **case} for name, case in cases.items()]
        outcome = Machine(folder, card, bits).run(plan, TIMEOUT_S)
        for name, case in cases.items():
            result = outcome.results.get(name)
            try:
                is_good = result is not None and CHECKS[case["case"]](result)
            except LookupError:
                is_good = False
            failed += not is_good
            rate = f"{result['mbit_s']} Mbit/s" if is_good and "mbit_s" in (result or {}) else ""
            word = "passed" if is_good else "no time" if result is None else "FAILED"
            _show(card, bits, name, word, rate)
            if not is_good:
                print(json.dumps(result, indent=1) if result else outcome.console[-3000:])
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    folder_, *cards_ = sys.argv[1:]
    sys.exit(main(Path(folder_).resolve(), cards_) != 0)
