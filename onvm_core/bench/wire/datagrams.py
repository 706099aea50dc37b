"""UDP datagrams of 64 bytes at a given rate.

    python -P -m onvm_core.bench.wire.datagrams ADDRESS PORT RATE_PPS

It says "ready" with the first datagrams, and sends until it is killed. One system call takes many
datagrams (UDP_SEGMENT), so one process in Python offers a million per second. The kernel cuts them
apart before they leave, if the interface has tx-udp-segmentation off.
"""

from __future__ import annotations

import socket
import sys
import time

__all__ = ["PAYLOAD_BYTES", "main"]

PAYLOAD_BYTES = 64
CALL_PACKETS = 32
FLOWS = 16
BEHIND_MAX_S = 0.01
"""A sender that was not run for longer does not make up for it with one large burst."""
UDP_SEGMENT = 103


def main(address: str, port: str, rate_pps: str) -> None:
    """Send."""
    flows = []
    for _ in range(FLOWS):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, PAYLOAD_BYTES)
        one.connect((address, int(port)))
        flows.append(one)
    payload = bytes(PAYLOAD_BYTES * CALL_PACKETS)
    period_s = CALL_PACKETS / float(rate_pps)
    next_s = time.monotonic()
    print("ready", flush=True)
    while True:
        for one in flows:
            wait_s = next_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            elif wait_s < -BEHIND_MAX_S:
                next_s = time.monotonic()
            next_s += period_s
            try:
                one.send(payload)
            except OSError:  # no buffer left: it counts as not offered
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
