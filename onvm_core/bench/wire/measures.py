"""Measurements on a wire; each returns figures by name."""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onvm_core.bench.wire.boxes import Ends
from onvm_core.bench.wire.wires import CLIENT, SERVER, Wire
from onvm_sdk.errors import OnvmError

__all__ = ["MEASURES", "UNITS", "idle_s", "ping_times_us", "wait_reachable"]

PORT = 5001
PING_INTERVAL_S = 0.002
PING_SAMPLES_MIN = 50
REACHABLE_S = 15.0
OFFERED_PPS = 1_000_000
"""More than a core forwards: what arrives is what the box can do."""
STEADY_PPS = 200_000
WARM_S = 0.3
SLACK_S = 15.0
"""A program that takes so much longer than it should has failed."""
UNITS = {
    "tcp_1": "Gbit/s",
    "tcp_10": "Gbit/s",
    "ping": "us",
    "ping.p99": "us",
    "http": "per s",
    "udp": "Mpps",
    "cpu": "ns/packet",
    "cpu.box": "ns/packet",
}

Figures = dict[str, float]


def wait_reachable(wire: Wire, host: str) -> None:
    """Wait until a ping of the client is answered.

    Raises:
        OnvmError: none is.
    """
    deadline = time.monotonic() + REACHABLE_S
    command = wire.spaces.command(CLIENT, "ping", "-c1", "-W1", host)
    while subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise OnvmError(f"ping {host}: no answer within {REACHABLE_S:g} s")


def _tcp(wire: Wire, ends: Ends, seconds: float) -> Figures:
    """Goodput of 1 and 10 streams; 0: no connection came about."""
    return {f"tcp_{n}": _goodput(wire, ends, n, seconds) for n in (1, 10)}


def _goodput(wire: Wire, ends: Ends, streams: int, seconds: float) -> float:
    receiver = wire.start_end(SERVER, "streams", "receive", PORT, seconds)
    _await_ready(receiver, "streams")
    sender = wire.start_end(CLIENT, "streams", "send", ends.service, PORT, streams)
    gbits_per_s = _number(receiver, seconds)
    wire.stop(receiver)
    wire.stop(sender)
    return gbits_per_s


def _ping(wire: Wire, ends: Ends, seconds: float) -> Figures:
    count = max(round(seconds / PING_INTERVAL_S), PING_SAMPLES_MIN)
    interval = f"-i{PING_INTERVAL_S:g}"
    command = wire.spaces.command(CLIENT, "ping", interval, "-W1", f"-c{count}", ends.host)
    # It ends with status 1 if answers are missing.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    times = ping_times_us(done.stdout)
    if len(times) < count / 2:
        raise OnvmError(f"ping {ends.host}: {len(times)} answers to {count} requests")
    return {
        "ping": statistics.median(times),
        "ping.p99": statistics.quantiles(times, n=100, method="inclusive")[-1],
    }


def ping_times_us(text: str) -> list[float]:
    """Round-trip times in the output of `ping`, in microseconds."""
    return [float(found) * 1e3 for found in re.findall(r"time[=<]([\d.]+) ms", text)]


def _http(wire: Wire, ends: Ends, seconds: float) -> Figures:
    server = wire.start_end(SERVER, "requests", "serve", PORT)
    _await_ready(server, "requests")
    client = wire.start_end(CLIENT, "requests", "ask", ends.service, PORT, seconds)
    per_s = _number(client, seconds)
    wire.stop(client)
    wire.stop(server)
    return {"http": per_s}


def _udp(wire: Wire, ends: Ends, seconds: float) -> Figures:
    """Datagrams per second that arrive when more are offered."""
    with _datagrams(wire, ends, OFFERED_PPS):
        before, begin = wire.packets(SERVER, "rx_packets"), time.monotonic()
        time.sleep(seconds)
        after, end = wire.packets(SERVER, "rx_packets"), time.monotonic()
    return {"udp": (after - before) / (end - begin) / 1e6}


def _cpu(wire: Wire, ends: Ends, seconds: float) -> Figures:
    """Time of all CPUs per datagram that arrives, at a rate that any box can take."""
    with _datagrams(wire, ends, STEADY_PPS):
        packets, idle, begin = wire.packets(SERVER, "rx_packets"), _idle_s(), time.monotonic()
        time.sleep(seconds)
        packets = wire.packets(SERVER, "rx_packets") - packets
        busy = time.monotonic() - begin - (_idle_s() - idle)
    return {"cpu": busy * (os.cpu_count() or 1) * 1e9 / max(packets, 1)}


@contextmanager
def _datagrams(wire: Wire, ends: Ends, rate_pps: int) -> Iterator[None]:
    """Send datagrams meanwhile, in packets of their own; a context manager.

    The socket that gets them is not read: the interface counts them, and all boxes have the same
    receiver, which costs little.
    """
    wire.cut_datagrams()
    with wire.spaces.inside(SERVER, _udp_socket) as sink:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        sink.bind(("", PORT))
        sender = wire.start_end(CLIENT, "datagrams", ends.service, PORT, rate_pps)
        _await_ready(sender, "datagrams")
        time.sleep(WARM_S)
        yield
        wire.stop(sender)


def _udp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def idle_s(stat: str) -> float:
    """Seconds for which the CPUs, on average, had nothing to do since the machine started.

    The kernel counts idle time exactly. It samples other time at each tick, and so misses work that
    sleeps in step with the ticks.

    Args:
        stat: content of /proc/stat.
    """
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    (_, _user, _nice, _system, idle, wait, _irq, _soft_irq, steal, *_), *cpus = lines
    ticks = int(idle) + int(wait) + int(steal)
    return ticks / os.sysconf("SC_CLK_TCK") / len(cpus)


def _idle_s() -> float:
    return idle_s(Path("/proc/stat").read_text(encoding="ascii"))


def _await_ready(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise OnvmError(f"{name}: ended with status {process.wait()}")


def _number(process: subprocess.Popen[str], seconds: float) -> float:
    """The figure that a program prints before it ends."""
    try:
        output, _ = process.communicate(timeout=seconds + SLACK_S)
        return float(output)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise OnvmError(f"{process.args!r}: no figure: {error}") from error


MEASURES: dict[str, Callable[[Wire, Ends, float], Figures]] = {
    "tcp": _tcp,
    "ping": _ping,
    "http": _http,
    "udp": _udp,
    "cpu": _cpu,
}
"""By name; each gets the seconds of a measurement, and returns figures."""
