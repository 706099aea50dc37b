"""The NF of the demo's second part: slow, so a few packets are a load for it."""

from __future__ import annotations

import time

from onvm_sdk import NetworkFunction

TYPE_CHECKING = False  # importing typing takes milliseconds
if TYPE_CHECKING:
    from typing import ClassVar

    from onvm_sdk import PacketView

__all__ = ["Inspect"]

WAIT_S = 0.0003


class Inspect(NetworkFunction):
    """Act as if it looked up each packet elsewhere: wait without using a CPU."""

    manifest: ClassVar = {"service": "inspect", "permissions": ["read"]}

    def process_packet(self, pkt: PacketView) -> None:
        """Wait, and let the packet go on."""
        time.sleep(WAIT_S)
