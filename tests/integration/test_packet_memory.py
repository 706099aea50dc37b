"""Each NUMA node has packets of its own: to use up one leaves the other alone."""

from __future__ import annotations

BUFFERS = 1024


def test_node_without_buffers_does_not_take_those_of_the_other(drive) -> None:
    (line,) = drive("numa_nodes")
    assert line["nodes"] == [[0, BUFFERS, BUFFERS, False], [900, BUFFERS, BUFFERS, True]]
    assert line["used_up"][0] == 0
    assert line["meanwhile"][0] == 0
    assert line["meanwhile"][1] > BUFFERS // 2, "the other node still has buffers"
    assert line["drained"] == [[BUFFERS, 0], [BUFFERS, 0]]
    assert line["balance"]["missing"] == 0
    assert line["end"] <= 1 << 39, "IOMMUs of 39 bits reach it"
