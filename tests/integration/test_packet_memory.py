"""Each CPU socket has packets of its own: who uses all of one leaves the other's alone."""

from __future__ import annotations

BUFFERS = 1024


def test_socket_without_buffers_does_not_take_the_other_s(drive) -> None:
    (line,) = drive("sockets")
    assert line["sockets"] == [[0, BUFFERS, BUFFERS, False], [900, BUFFERS, BUFFERS, True]]
    assert line["used_up"][0] == 0
    assert line["meanwhile"][0] == 0
    assert line["meanwhile"][1] > BUFFERS // 2, "the other socket still has buffers"
    assert line["drained"] == [[BUFFERS, 0], [BUFFERS, 0]]
    assert line["balance"]["missing"] == 0
