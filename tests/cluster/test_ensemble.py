"""The connection to ZooKeeper, without one."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from kazoo.exceptions import ConnectionLoss
from kazoo.protocol.states import KeeperState

from onvm_core.cluster.tree.ensemble import Ensemble


class LateQueue(deque[Any]):
    """The session ends just before a request gets here, as another thread may do it."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    def append(self, item: Any) -> None:
        self._client._session_callback(KeeperState.CLOSED)
        super().append(item)


def test_request_made_while_the_session_ends_is_answered() -> None:
    client = Ensemble("127.0.0.1:1").client
    client._state = KeeperState.CONNECTED
    client._connection._write_sock = SimpleNamespace(send=lambda _: None)
    client._queue = LateQueue(client)
    with pytest.raises(ConnectionLoss):
        client.get_async("/").get(timeout=2)
