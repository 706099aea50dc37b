# SPDX-License-Identifier: Apache-2.0
"""The thread that watches backends: checks, files of backends, slow starts, reports.

It runs beside the burst loop and never stops it. What follows for packets it offers as a `Plan`,
which the thread of the NF applies between two bursts; making one, most of it in C, holds nothing
up either. Each instance of the load balancer watches for itself.

Threads: methods say which may call them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from onvm_nf_lb import backends_file, probes
from onvm_nf_lb.check import Target
from onvm_nf_lb.config import LbConfig, with_backends
from onvm_nf_lb.kernel import Plan, read_usages
from onvm_nf_lb.pool import Pool
from onvm_nf_lb.report import make_report, text_lines, write_report
from onvm_sdk.errors import ConfigError

__all__ = ["Watch"]

TURN_S = 0.1
FILE_POLL_S = 0.25
_NICENESS = 10
_PROBES_MAX = 256
_Probe = Callable[[Target], Awaitable[str | None]]


def _say(line: str) -> None:
    print(f"onvm-nf-lb: {line}", file=sys.stderr, flush=True)


class _File:
    """A file of backends, and the last good set."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entries: backends_file.Entries = []
        self._seen: object = None
        self._error = ""
        self._is_told = True

    def look(self) -> backends_file.Entries | None:
        """Return the backends if the file has changed; None if not, or if it is broken."""
        seen = self._signature()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            return backends_file.read(self.path)
        except ConfigError as error:
            self.refuse(error)
            return None

    def refuse(self, error: ConfigError) -> None:
        """Keep the last good set. A file that is being written is looked at again first."""
        self._error, self._is_told = str(error), False

    def complaint(self) -> str:
        """Give what is wrong with the file, once; "" if nothing is."""
        if self._is_told or self._seen != self._signature():
            return ""
        self._is_told = True
        return f"{self._error}; the last good backends stay ({len(self.entries)})"

    def accept(self, entries: backends_file.Entries) -> None:
        self.entries, self._is_told = entries, True

    def _signature(self) -> object:
        try:
            found = Path(self.path).stat()
        except OSError as error:
            return error.errno
        return found.st_mtime_ns, found.st_size, found.st_ino


class Watch:
    """Watches the backends of a configuration.

    Args:
        config: as `load` gives it; files add backends.
        instance: name of the instance, for its report.
        probe: checks once and returns why it failed, or None.
        before: the pool of the configuration before; what it knows of the same backends stays.
        clock: the time in seconds; only differences count.
        say: takes lines for the log.
    """

    def __init__(
        self,
        config: LbConfig,
        instance: str = "",
        *,
        before: Pool | None = None,
        probe: _Probe = probes.probe,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = _say,
    ) -> None:
        self._source = config
        self._instance = instance
        self._probe = probe
        self._clock = clock
        self._say = say
        self._offers: deque[Plan] = deque(maxlen=1)
        self._failing: deque[tuple[Plan, list[tuple[int, int]]]] = deque()
        self._usage: tuple[Plan, bytes] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._is_ending = False
        self._checks: dict[Target, asyncio.Task[None]] = {}
        self._files = {vip.file: _File(vip.file) for vip in config.vips if vip.file}
        self._wants_text = False
        self._report_errno: int | None = None
        self._read_files()
        self._pool = Pool(self._merged(), clock(), before)
        self._plan = Plan(self._pool.config, self._pool.shares(clock()))

    @property
    def plan(self) -> Plan:
        """The plan to begin with."""
        return self._plan

    @property
    def pool(self) -> Pool:
        """What is known of the backends, for another watch to begin with."""
        return self._pool

    # ---- called by the thread of the NF ----

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lb-watch", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Let the thread end soon."""
        self._is_ending = True
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            self._thread.join()

    def take(self) -> Plan | None:
        """Return what is to be applied, if there is anything new.

        Raises:
            RuntimeError: the thread has ended by an error, which is the cause.
        """
        if self._error is not None:
            raise RuntimeError("the thread that watches backends has ended") from self._error
        with contextlib.suppress(IndexError):
            return self._offers.popleft()
        return None

    def tell_failing(self, plan: Plan, places: list[tuple[int, int]]) -> None:
        """Take backends that have failed clients, by the plan that was in force."""
        self._failing.append((plan, places))

    def tell_usage(self, plan: Plan, usage: bytes) -> None:
        """Take what backends carry, for reports."""
        self._usage = plan, usage

    def report_to_log(self) -> None:
        """Let the thread print its report."""
        self._wants_text = True

    # ---- the thread ----

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # a cgroup or sandbox may refuse either
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
            others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
            if others:  # the NF's own CPU is for packets
                os.sched_setaffinity(0, others)
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  it is raised again in the thread of the NF
            self._error = error

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._slots = asyncio.Semaphore(_PROBES_MAX)
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._tell(list(self._pool.served(self._plan.shares)))
            self._keep_checks()
            tasks = [group.create_task(self._turns()), group.create_task(self._poll_files())]
            if not self._is_ending:  # it may have been set before there was an event
                await self._stop.wait()
            for task in [*tasks, *self._checks.values()]:
                task.cancel()

    def _keep_checks(self) -> None:
        """Have one task for each target of the pool."""
        wanted = self._pool.members
        for target in self._checks.keys() - wanted.keys():
            self._checks.pop(target).cancel()
        new = [target for target in wanted if target not in self._checks]
        for i, target in enumerate(new):  # spread over their interval
            delay_s = target.check.interval_s * i / len(new)
            self._checks[target] = self._group.create_task(self._check(target, delay_s))

    async def _check(self, target: Target, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(delay_s)
        while True:
            next_s = loop.time() + target.check.interval_s
            async with self._slots:
                failure = await self._probe(target)
            lines = self._pool.note(target, failure, self._clock())
            if lines:
                self._tell(lines)
                self._publish()
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    async def _turns(self) -> None:
        report_s = self._clock()
        while True:
            while self._failing:
                plan, places = self._failing.popleft()
                if plan.config is self._pool.config:
                    for place in places:
                        self._tell(self._pool.take_out(place, self._clock()))
            self._tell(self._pool.turn(self._clock()))
            self._publish()
            if self._clock() >= report_s or self._wants_text:
                self._report()
                report_s = self._clock() + 1
            await asyncio.sleep(TURN_S)

    async def _poll_files(self) -> None:
        while self._files:
            await asyncio.sleep(FILE_POLL_S)
            if self._read_files():
                self._pool = Pool(self._merged(), self._clock(), self._pool)
                self._keep_checks()
                self._publish()
            for file in self._files.values():
                if complaint := file.complaint():
                    self._say(complaint)

    def _merged(self) -> LbConfig:
        """The configuration with the backends of the files."""
        if not self._files:
            return self._source
        return with_backends(self._source, {f.path: f.entries for f in self._files.values()})

    def _read_files(self) -> bool:
        """Read the files that have changed; return whether any has a good set that is new."""
        has_changed = False
        for file in self._files.values():
            entries = file.look()
            if entries is None:
                continue
            listed = {path: other.entries for path, other in self._files.items()}
            try:
                with_backends(self._source, {**listed, file.path: entries})
            except ConfigError as error:
                file.refuse(error)
                continue
            file.accept(entries)
            has_changed = True
            self._say(f"{file.path}: {len(entries)} backend{'s' * (len(entries) != 1)}")
        return has_changed

    def _publish(self) -> None:
        shares = self._pool.shares(self._clock())
        if self._pool.config is self._plan.config and list(shares) == list(self._plan.shares):
            return
        self._tell(list(self._pool.served(shares)))
        self._plan = Plan(self._pool.config, shares, self._plan)
        self._offers.append(self._plan)

    def _tell(self, lines: list[str]) -> None:
        for line in lines:
            self._say(line)

    def _report(self) -> None:
        path = self._source.settings.report
        if self._usage is None or not (path or self._wants_text):
            return
        plan, usage = self._usage
        if plan.config is not self._pool.config:
            return
        report = make_report(self._instance, plan, self._pool, read_usages(usage), self._clock())
        if self._wants_text:
            self._wants_text = False
            self._tell(text_lines(report))
        if path:
            try:
                write_report(path.replace("{instance}", self._instance), report)
            except OSError as error:
                if self._report_errno != error.errno:
                    self._say(f"{path}: {(error.strerror or '').lower()}; there is no report")
                self._report_errno = error.errno
            else:
                self._report_errno = None
