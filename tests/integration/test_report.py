"""What is shown of a manager in which packets are on their way."""

from __future__ import annotations

from pathlib import Path

from scenario import run

PASSING = """
from onvm_core.manager.reporting import make_report

near = plane.open_port("in", NullPort())
far = plane.open_port("out", NullPort(is_source=False))
manager.set_chain(1, near, far, [])
plane.pause_sources(False)
until(lambda: plane.read_port(far).tx > 0)
names = {near: ("in", "null:"), far: ("out", "null:")}
result = []
for _ in range(300):
    report = make_report(manager, names, 1.0)
    result.append(report.rx + report.originated - report.tx - sum(report.drops.values()))
"""


def test_nothing_has_left_that_did_not_come(tmp_path: Path) -> None:
    inside = run(PASSING, tmp_path)["result"]
    assert min(inside) >= 0
    assert max(inside) > 0, "nothing was on its way: this test shows nothing"
