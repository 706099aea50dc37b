"""`onvm logs`, `onvm events` and logs as JSON."""

from __future__ import annotations

import json
import subprocess
import time

from commands import ONVM
from test_nf_output import CONFIG, TALKER
from up_host import Host, install_nf


def test_logs_and_events_of_a_manager(host: Host) -> None:
    install_nf(host.site, "talker", TALKER)
    host.configure(CONFIG.format(nf="talker"))
    host.do("up", "-d", "--log-format", "json")
    host.wait(lambda: "first of" in host.do("logs", "talker-1"))
    own = [line.split(" | ", 1)[1] for line in host.do("logs", "talker-1").splitlines()]
    assert own[0] == "set up"
    record = json.loads(own[1])
    assert record["logger"] == "talker"
    assert record["level"] == "info"
    assert record["message"] == "first of 64 bytes"
    manager = host.do("logs", "manager", "-n", "0").splitlines()
    assert any(
        json.loads(line.split(" | ", 1)[1])["logger"].startswith("onvm.")
        for line in manager
        if "{" in line
    )
    assert host.do("logs", "talker-1", "-n", "1").count("\n") == 1
    none = host.onvm("logs", "nobody")
    assert none.returncode == 2
    assert none.stderr == (
        "error: logs: 'nobody': expected an instance with a log (manager, talker-1)\n"
    )
    events = host.json("events")
    states = [
        (one["event"]["instances"], one["event"]["state"])
        for one in events
        if one["event"]["type"] == "nf"
    ]
    assert (["talker-1"], "active") in states
    assert events[-1]["event"] == {"type": "manager", "state": "ready"}
    assert [one["number"] for one in events] == list(range(1, len(events) + 1))
    following = subprocess.Popen(
        [*ONVM, "events", "-f", "--json"], env=host.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert following.stdout is not None
        for _ in events:
            following.stdout.readline()
        host.do("nf", "run", "talker")
        after = json.loads(following.stdout.readline())
        assert after["event"]["instances"] == ["talker-2"]
        assert abs(after["time"] - time.time()) < 60
    finally:
        following.terminate()
        following.communicate()
