"""The data plane in C and the one in memory obey and refuse the same calls.

So what unit tests find with the one in memory holds for the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scenario import run

from onvm_core.dataplane import values
from onvm_core.dataplane.fake import FakeDataPlane
from onvm_core.dataplane.interface import DataplaneError

pytestmark = pytest.mark.once

FRAME = """
import os
from onvm_core.dataplane.values import Affinity, CapturePoint, ChainSpec, TunnelPort

result = []

def step(name, *arguments, **named):
    try:
        found = getattr(plane, name)(*arguments, **named)
    except DataplaneError as error:
        result.append([name, "refused", error.errno])
        return None
    if name in ("add_host",):
        os.close(found[1].area_fd)
        found = found[0]
    result.append([name, found if isinstance(found, int) else "done"])
    return found

near, far = plane.open_port("in", NullPort()), plane.open_port("out", NullPort(is_source=False))
"""
CONTRACT = {
    "states of a host": """
slot = step("add_host", [1], 0)
step("drain_host", slot)
step("pause_host", slot, True)
step("leave_host", slot)
step("activate_host", slot)
step("activate_host", slot)
step("drain_host", slot)
step("pause_host", slot, True)
step("pause_host", slot, False)
step("activate_host", slot)
step("drain_host", slot)
result.append(plane.read_host(slot).reserved)
step("leave_host", slot)
step("leave_host", slot)
step("activate_host", slot)
step("remove_host", slot)
step("remove_host", slot)
step("read_host", slot)
step("raise_attention", slot)
""",
    "slots are used again": """
slots = [step("add_host", [1], 0) for _ in range(3)]
step("remove_host", slots[1])
step("add_host", [2, 3], 0)
""",
    "hosts that cannot be": """
step("add_host", [], 0)
step("add_host", [1] * 17, 0)
step("add_host", [1], settings.ring_length)
""",
    "claims": """
slot = step("add_host", [1], 0)
step("claim", slot, bytes([192, 0, 2, 1]), 17, 10, 20)
step("claim", slot, bytes([192, 0, 2, 1]), 17, 20, 20)
step("claim", slot, bytes([192, 0, 2, 1]), 17, 20, 65537)
step("unclaim", slot, bytes([192, 0, 2, 1]), 17, 10, 20)
step("unclaim", slot, bytes([192, 0, 2, 1]), 17, 10, 20)
""",
    "what services want": """
step("set_affinity", 1, Affinity.SOURCE)
step("set_affinity", 0, Affinity.SOURCE)
step("set_affinity", 256, Affinity.SOURCE)
step("set_lifetimes", 255, [1] * 7)
step("set_lifetimes", 0, [1] * 7)
""",
    "ports and chains": """
step("set_chain", 1, ChainSpec(near, far, (1,)))
step("set_chain", 0, ChainSpec(near, far, (1,)))
step("set_chain", 1, ChainSpec(near, 77, (1,)))
step("set_chain", 3, ChainSpec(near, far, (1,), is_unbound=True))
step("succeed_chain", 1, 3)
step("succeed_chain", 1, 2)
step("succeed_chain", 1, 1)
step("remove_chain", 3)
step("close_port", near)
step("remove_chain", 2)
step("remove_chain", 1)
step("close_port", near)
step("close_port", near)
step("set_port_rules", 77, [])
step("open_port", "again", NullPort())
""",
    "peers": """
step("add_remote", [1], 1, 9)
step("open_port", "cluster", TunnelPort(bytes([127, 0, 0, 9]), 7))
step("open_port", "cluster2", TunnelPort(bytes([127, 0, 0, 9]), 7))
peer = step("add_peer", bytes([127, 0, 0, 8]))
step("add_peer", bytes([127, 0, 0, 8]))
slot = step("add_remote", [1], peer, 9)
step("add_remote", [1], peer, 9)
step("drain_host", slot)
step("activate_host", slot)
step("set_spare_capacity", slot, 100)
step("remove_peer", peer)
step("remove_remote", 5)
step("remove_remote", slot)
step("remove_peer", peer)
step("remove_peer", peer)
""",
    "captures": """
fd = os.open(directory / "x.pcapng", os.O_WRONLY | os.O_CREAT)
options = {"snap_length": 0, "limit": 0, "ring_bytes": 1 << 16, "fd": fd}
step("start_capture", [CapturePoint("x", 77)], **options)
step("start_capture", [CapturePoint("x", 77, is_host=True)], **options)
capture = plane.start_capture([CapturePoint("in", near)], **options)
step("drain_capture", capture)
step("stop_capture", capture)
step("read_capture", capture)
""",
}


def run_fake(code: str, directory: Path) -> Any:
    settings = values.DataplaneSettings()
    plane = FakeDataPlane.ready(settings, [])
    known: dict[str, Any] = {
        "plane": plane,
        "settings": settings,
        "directory": directory,
        "NullPort": values.NullPort,
        "DataplaneError": DataplaneError,
    }
    try:
        exec(code, known)
    finally:
        plane.fini()
    return known["result"]


@pytest.mark.parametrize("name", CONTRACT)
def test_fake_obeys_and_refuses_as_the_real_one(name: str, tmp_path: Path) -> None:
    code = FRAME + CONTRACT[name]
    assert run_fake(code, tmp_path) == run(code, tmp_path)["result"]
