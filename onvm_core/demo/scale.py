"""The demo's second part: load rises in steps, and a service scales out, shown live.

    python -P -m onvm_core.demo.scale

Generated clients start one after the other; each connection is checked end to end. The service
"inspect" waits for each packet as if it looked it up elsewhere. So a few thousand packets per
second are a load for it, and two cores carry several instances. The autoscaler is that of
``onvm up``.

It succeeds if every connection completed, no packet was lost, and an instance was added.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from onvm_core.cli.table import Table, number, text
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.export.report import Report
from onvm_core.launch.launcher import Launchers
from onvm_core.manager.api.directory import temporary_directory
from onvm_core.manager.api.messages import ScaleStatusRequest
from onvm_core.manager.config.extensions import Extensions
from onvm_core.manager.config.onvm_toml import Config
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.placement.allocator import load_policy
from onvm_core.manager.placement.policy import DEFAULT_POLICY
from onvm_core.manager.ports import port_kinds
from onvm_core.manager.service.automation import Automation
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_core.plugins import load_plugins
from onvm_core.scaling.autoscaler import Decision
from onvm_core.scaling.policy import UtilisationPolicy
from onvm_sdk.errors import OnvmError

__all__ = ["Outcome", "View", "losses", "main", "obstacles", "show_live"]

NF = "onvm_core.demo.nf:Inspect"
SERVICE = "inspect"
STEPS = 5
STEP_S = 3.0
CLIENT_PPS = 350
"""Rate of each client; its replies also pass the service."""
SHOW_EVERY_S = 0.25
SAY_EVERY_S = 1.0
NO_LOSSES = {"router.consumed", "router.resolving"}
"""Words of neighbours, and packets that leave as copies once the neighbour has answered."""
QUIET_S = 6.0
"""Longest wait for instances to end."""
END_S = 40.0
BARS = "▁▂▃▄▅▆▇█"
BAR_WIDTH = 20


class View(msgspec.Struct, frozen=True):
    """The picture at one moment."""

    elapsed_s: float
    pps: list[float]
    """Packets per second of the service, oldest first."""
    instances: list[tuple[str, str, float | None]]
    """Name, state, and utilisation."""
    decisions: list[Decision]
    completed: int
    failed: int


class Outcome(msgspec.Struct, frozen=True):
    """The outcome."""

    report: Report
    decisions: list[Decision]


def main() -> int:
    """Run this part and return the exit status."""
    print(
        f"\nRising load: {STEPS} clients, one every {STEP_S:g} s, at a service with one instance.",
        flush=True,
    )
    console = Console()
    with show_live(console) as show:
        outcome = _run(show)
    problems = obstacles(outcome)
    added = [d for d in outcome.decisions if d.wanted > d.before]
    for decision in added:
        took = "" if decision.done_ms is None else f"; it served after {decision.done_ms:.0f} ms"
        print(f"{', '.join(decision.actions)}: {decision.reason}{took}")
    done = sum(generator.completed for generator in outcome.report.generators)
    print(
        f"{done:,} connections completed; {outcome.report.rx:,} packets, none lost."
        if not problems
        else "This went wrong: " + "; ".join(problems) + "."
    )
    return 1 if problems else 0


def losses(report: Report) -> list[str]:
    """The losses, in words."""
    found = []
    for generator in report.generators:
        if generator.opened != generator.completed or generator.opened == 0:
            found.append(
                f"{generator.port}: {generator.completed} of {generator.opened} connections "
                "completed"
            )
        if generator.lost or generator.failed:
            found.append(f"{generator.port}: {generator.lost} packets lost")
    dropped = {why: n for why, n in report.drops.items() if why not in NO_LOSSES}
    if dropped:
        found.append("dropped: " + ", ".join(f"{n} {why}" for why, n in dropped.items()))
    if report.rx + report.originated != report.tx + sum(report.drops.values()):
        found.append("packets are missing")
    if report.buffers.free != report.buffers.total:
        found.append("buffers are missing")
    return found


def obstacles(outcome: Outcome) -> list[str]:
    """Conditions that failed, in words."""
    found = losses(outcome.report)
    if not any(d.by == "policy" and d.wanted > d.before and not d.error for d in outcome.decisions):
        found.append("no instance was added")
    return found


class _Act:
    """A manager with its autoscaler, and clients."""

    def __init__(self, directory: Path) -> None:
        config = ScaleConfig(max=3, in_after_s=1.5, cooldown_s=1.0)
        settings = DataplaneSettings(ring_length=2048, n_buffers=16384, flow_capacity=1 << 16)
        self.deployment = Deployment(
            directory,
            settings,
            kinds=port_kinds(load_plugins()),
            package=lambda name: None,
            launchers=Launchers(),
            placement=load_policy(DEFAULT_POLICY),
        )
        self.supervisor = Supervisor(directory, self.deployment, lambda event: None)
        self.automation = Automation(
            "demo",
            self.deployment,
            self.supervisor,
            Config(scale={SERVICE: config}),
            Extensions(policies={SERVICE: UtilisationPolicy(config.settings())}),
            lambda event: None,
        )
        self.deployment.on_host_change = self.automation.on_host_change
        self.supervisor.run(WantedHost.make((NF,), (SERVICE,), (f"{SERVICE}-1",), {}))
        self.until(lambda: self.deployment.serves(SERVICE), 20.0, "the first instance")
        self.deployment.begin()

    def close(self) -> None:
        self.automation.close()
        self.supervisor.stop_all()
        self.deployment.close()

    def turn(self) -> None:
        self.deployment.poll(self.automation.poll_s)
        self.supervisor.turn()
        self.automation.turn()

    def until(self, is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_true():
            self.turn()
            if time.monotonic() > deadline:
                raise OnvmError(f"{what}: not within {timeout_s:g} s")

    def add_client(self, number: int) -> None:
        seconds = STEP_S * (STEPS - number + 1)
        packets = int(CLIENT_PPS * seconds)
        near, far = f"client-{number}", f"server-{number}"
        uri = f"gen:?flows=30&rate={CLIENT_PPS}&count={packets}&seed={number}&timeout_ms=20000"
        self.deployment.plane.pause_sources(True)  # until the new one has its chain
        self.deployment.open_port(near, uri, "in")
        self.deployment.open_port(far, "gen:", "out")
        self.deployment.chains.add(
            near, near, far, [SERVICE], is_bidirectional=True, track_flows=True
        )
        self.deployment.plane.pause_sources(False)

    @property
    def decisions(self) -> list[Decision]:
        return self.automation.scaling.status(ScaleStatusRequest()).decisions

    def view(self, elapsed_s: float, pps: list[float]) -> View:
        report = self.deployment.report()
        return View(
            elapsed_s=elapsed_s,
            pps=pps,
            instances=[
                (nf.instance, nf.state, None if nf.load is None else nf.load.utilisation)
                for nf in report.nfs
                if not nf.is_gone
            ],
            decisions=self.decisions,
            completed=sum(generator.completed for generator in report.generators),
            failed=sum(generator.failed for generator in report.generators),
        )

    def handed_over(self) -> int:
        return sum(nf.rx for nf in self.deployment.report().nfs)


def _run(show: Callable[[View], None]) -> Outcome:
    with temporary_directory() as directory:
        act = _Act(Path(directory))
        try:
            _play(act, show)
            seconds = act.deployment.elapsed_s
            act.deployment.drain()
            decisions = act.decisions
            act.supervisor.stop_all()
            return Outcome(act.deployment.finish(seconds), decisions)
        finally:
            act.close()


def _play(act: _Act, show: Callable[[View], None]) -> None:
    """Raise the load, until the clients have finished and instances have ended."""
    begin = shown = time.monotonic()
    pps: list[float] = []
    seen, clients, quiet_since = 0, 0, 0.0
    while (elapsed := time.monotonic() - begin) < END_S:
        if clients < STEPS and elapsed >= clients * STEP_S:
            clients += 1
            act.add_client(clients)
        act.turn()
        now = time.monotonic()
        if now - shown >= SHOW_EVERY_S:
            count = act.handed_over()
            pps.append((count - seen) / (now - shown))
            seen, shown = count, now
            show(act.view(elapsed, pps[-60:]))
        is_over = clients == STEPS and act.deployment.sources_finished()
        if not is_over or not act.deployment.is_drained():
            quiet_since = now
        elif len(act.supervisor.launched()) == 1 or now - quiet_since > QUIET_S:
            return


# ---- showing ----


@contextmanager
def show_live(console: Console) -> Iterator[Callable[[View], None]]:
    """Shows views: as a live table, or as lines without a terminal."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield lambda view: live.update(_picture(view))


class _Lines:
    """A line every second, and one for each decision."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = 0
        self._next_s = 0.0

    def __call__(self, view: View) -> None:
        for decision in view.decisions[self._said :]:
            self._console.print(f"      {_sentence(decision)}", highlight=False, soft_wrap=True)
        self._said = len(view.decisions)
        if view.elapsed_s < self._next_s:
            return
        self._next_s = view.elapsed_s + SAY_EVERY_S
        shares = ", ".join(
            f"{name} {'-' if used is None else f'{used:.0%}'}" for name, _, used in view.instances
        )
        self._console.print(
            f"{view.elapsed_s:4.0f} s {view.pps[-1]:7,.0f} packets/s   {shares}",
            highlight=False,
            soft_wrap=True,
        )


def _picture(view: View) -> Group:
    load = Text.assemble(
        ("load  ", "bold"), (_sparkline(view.pps), "cyan"), f"  {view.pps[-1]:,.0f} packets/s"
    )
    table = Table("", (text("instance"), text("state"), text("utilisation"), number("%")))
    for name, state, used in view.instances:
        table.add(name, state, _bar(used), "-" if used is None else f"{used:.0%}")
    return Group(
        load,
        table,
        "",
        _decisions(view.decisions),
        f"{view.completed:,} connections completed, {view.failed:,} failed",
    )


def _sparkline(values: list[float]) -> str:
    top = max(values, default=0.0) or 1.0
    return "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] for value in values)


def _bar(share: float | None) -> Text:
    filled = round((share or 0.0) * BAR_WIDTH)
    colour = "green" if (share or 0.0) < 0.7 else "yellow" if (share or 0.0) < 0.95 else "red"
    return Text.assemble(("█" * filled, colour), ("░" * (BAR_WIDTH - filled), "dim"))


def _decisions(decisions: list[Decision]) -> Group:
    lines = [
        Text(f"{time.strftime('%H:%M:%S', time.localtime(one.time))}  {_sentence(one)}")
        for one in decisions[-5:]
    ]
    return Group(Text("decisions", style="bold"), *lines, "")


def _sentence(decision: Decision) -> str:
    took = "" if decision.done_ms is None else f" ({decision.done_ms:.0f} ms)"
    what = ", ".join(decision.actions) or decision.error
    return f"{decision.before} → {decision.wanted}: {decision.reason}; {what}{took}"


if __name__ == "__main__":
    sys.exit(main())
