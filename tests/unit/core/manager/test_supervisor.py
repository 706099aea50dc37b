"""What a supervisor does with what an earlier manager has left, whatever goes wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onvm_core.dataplane.fake import FakeDataPlane
from onvm_core.launch.handles import AdoptedHandle
from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import LaunchSpec
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.placement.allocator import NoResourcesError
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_sdk.errors import ConfigError

FIRST = WantedHost(("a",), ("a",), ("a-1",))
SECOND = WantedHost(("a",), ("a",), ("a-2",))
BY_COMMAND = WantedHost(("a",), ("a",), ("a-3",), launcher="lost", is_by_command=True)


class FullHost:
    """A deployment on a host without free resources, where the launcher "lost" is no longer
    offered.
    """

    def __init__(self, folder: Path) -> None:
        self.manager = SimpleNamespace(attach_path=folder / "attach.sock", plane=FakeDataPlane())
        self.record = folder / "nfs.json"
        self.recorded: list[set[str]] = []

    def launch(self, nfs: tuple[str, ...], **_: Any) -> None:
        raise NoResourcesError(nfs[0], "it is full")

    def adopt(
        self, spec: LaunchSpec, process: ProcessId, _services: tuple[str, ...], launcher: str
    ) -> AdoptedHandle:
        self.recorded.append({one["secret"] for one in json.loads(self.record.read_text())})
        if launcher == "lost":
            raise ConfigError("expected one of process", field="launcher", value=launcher)
        return AdoptedHandle(spec, process)

    def end_earlier(self, spec: LaunchSpec, process: ProcessId | None, launcher: str) -> None:
        if process is not None:
            AdoptedHandle(spec, process).kill()


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    made = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    yield made
    for one in made:
        one.kill()
        one.wait()


def write(folder: Path, wanted: list[tuple[WantedHost, int]]) -> None:
    """The record of a manager that was killed; NF hosts with a PID live."""
    records = []
    for one, pid in wanted:
        process = ProcessId.of(pid) or ProcessId(1 << 30, 1)
        records.append(
            {
                "wanted": {name: getattr(one, name) for name in WantedHost.__struct_fields__},
                "secret": one.instances[0],
                "log": str(folder / "log"),
                "pid": process.pid,
                "start_time": process.start_time,
            }
        )
    (folder / "nfs.json").write_text(json.dumps(records))


def make(folder: Path) -> tuple[Supervisor, FullHost]:
    deployment = FullHost(folder)
    return Supervisor(folder, cast("Deployment", deployment), lambda _event: None), deployment


def test_record_is_whole_while_hosts_are_adopted(
    tmp_path: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """A manager that is killed meanwhile leaves nothing that the next one cannot find."""
    write(tmp_path, [(FIRST, sleepers[0].pid), (SECOND, sleepers[1].pid)])
    supervisor, deployment = make(tmp_path)
    assert supervisor.adopt([FIRST, SECOND]) == 2
    assert deployment.recorded == [{"a-1", "a-2"}] * 2
    assert [one.pid for one in supervisor.launched()] == [one.pid for one in sleepers[:2]]


def test_host_that_cannot_be_adopted_is_ended(
    tmp_path: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    write(tmp_path, [(BY_COMMAND, sleepers[0].pid), (SECOND, sleepers[1].pid)])
    supervisor, _ = make(tmp_path)
    assert supervisor.adopt([SECOND]) == 1
    assert sleepers[0].wait(10) == -9
    assert sleepers[1].poll() is None


def test_without_room_only_what_the_file_wants_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, [(BY_COMMAND, 0)])
    supervisor, deployment = make(tmp_path)
    assert supervisor.adopt([]) == 0
    assert supervisor.launched() == []
    with pytest.raises(NoResourcesError, match="no resources for a: it is full"):
        supervisor.adopt([FIRST])
    assert json.loads(deployment.record.read_text()) == []


class Together(FullHost):
    """A deployment whose NF hosts end only when all of them have been asked to."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder)
        self.n_missing = count
        self.n_polls = 0

    def launch(self, nfs: tuple[str, ...], **_: Any) -> Any:
        return SimpleNamespace(
            spec=SimpleNamespace(cpus=(), nfs=nfs, log_path=self.record),
            pid=0,
            stop=self._stop,
            poll=lambda: 0 if self.n_missing == 0 else None,
            kill=lambda: pytest.fail("it had no time to end"),
            log_tail=list,
        )

    def _stop(self) -> None:
        self.n_missing -= 1

    def poll(self, _timeout_s: float) -> None:
        self.n_polls += 1
        assert self.n_polls < 10

    def forget(self, _handle: Any) -> None:
        pass


def test_all_are_asked_to_end_before_one_is_waited_for(tmp_path: Path) -> None:
    deployment = Together(tmp_path, 64)
    supervisor = Supervisor(tmp_path, cast("Deployment", deployment), lambda _event: None)
    for number in range(64):
        supervisor.run(WantedHost(("a",), ("a",), (f"a-{number}",)))
    assert len(json.loads(deployment.record.read_text())) == 64
    supervisor.stop_all()
    assert deployment.n_polls == 1
    assert not deployment.record.exists()
