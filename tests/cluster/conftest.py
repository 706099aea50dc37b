"""A real ZooKeeper for the tests: one server for all of them, three where faults are tested."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Cluster

from onvm_core.cluster.credentials import Credentials
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def credentials() -> Credentials:
    return Credentials.make()


@pytest.fixture(scope="session")
def server(credentials: Credentials) -> Iterator[LocalEnsemble]:
    """One server that accepts SASL and refuses no client without it: the ACLs must do that."""
    with (
        tempfile.TemporaryDirectory(prefix="onvm-zk-") as folder,
        LocalEnsemble(Path(folder), credentials=credentials) as made,
    ):
        yield made


@pytest.fixture
def cluster(
    server: LocalEnsemble,
    credentials: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    """A new cluster for one test, and what it needs to put hosts in it."""
    with tempfile.TemporaryDirectory(prefix="onvm-c-") as runtime:
        monkeypatch.setenv("ONVM_RUNTIME_DIR", runtime)
        made = Cluster(server.hosts, credentials, f"test-{next(_numbers)}", tmp_path)
        with made:
            yield made
