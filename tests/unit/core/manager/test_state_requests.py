"""Names of instances that have moved away: reserved as long as their traffic is used elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from onvm_core.manager.nf_hosts.codec import Claim
from onvm_core.manager.service import state_requests
from onvm_core.manager.service.state_requests import StateRequests

ADDRESS = bytes([192, 0, 2, 1])
MINE = Claim(ADDRESS, 17, 1024, 4096)


@pytest.mark.parametrize(
    ("other", "is_reserved"),
    [
        (MINE, True),
        (Claim(ADDRESS, 17, 1024, 2048), True),  # a part of it
        (Claim(ADDRESS, 17, 0, 65536), True),  # merged with others
        (Claim(ADDRESS, 0, 4095, 5000), True),  # of any protocol
        (Claim(ADDRESS, 17, 4096, 8192), False),
        (Claim(ADDRESS, 6, 1024, 4096), False),
        (Claim(bytes([192, 0, 2, 2]), 17, 1024, 4096), False),
        (None, False),
    ],
)
def test_name_is_reserved_while_its_traffic_is_used_in_whole_or_in_part(
    other: Claim | None, is_reserved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_requests, "RESERVED_S", 0.0)
    tables: Any = SimpleNamespace(remote_claims=lambda: set() if other is None else {other})
    supervisor: Any = SimpleNamespace(drains=SimpleNamespace(handovers=None))
    deployment: Any = SimpleNamespace(manager=None)
    requests = StateRequests(deployment, supervisor, tables)
    requests._moved["nat-1"] = (0.0, frozenset({MINE}))
    assert tables.reserved() == ({"nat-1"} if is_reserved else set())
