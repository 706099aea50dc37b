"""``onvm nf show`` and ``onvm nf kill`` on NFs that serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from up_host import Host

FILE = """
[ports.near]
uri = "null:?flows=3000&rate=20000"
[ports.far]
uri = "null:"
[nfs.firewall.config]
default = "drop"
rules = [{ action = "accept", protocol = "udp", comment = "all of it" }]
[chains.main]
in = "near"
out = "far"
services = ["firewall"]
"""


def test_connections_are_listed_in_pages_filtered_and_killed(host: Host) -> None:
    host.configure(FILE)
    host.do("up", "-d")

    def shown(*arguments: str) -> list[dict[str, object]]:
        (answer,) = host.json("nf", "show", "firewall", "connections", *arguments)
        return answer["entries"]

    host.wait(lambda: len(shown("--limit", "10000")) == 3000)
    lists = host.do("nf", "show", "firewall")
    assert "connections" in lists
    assert "rules" in lists
    one = shown("--limit", "1", "--skip", "2999")[0]
    assert one["protocol"] == "udp"
    port = str(one["src_port"])
    same = shown("--where", f"src={one['src']}", "--where", f"src_port={port}")
    assert [entry["src_port"] for entry in same] == [one["src_port"]]
    (rule,) = host.json("nf", "show", "firewall-1", "rules")[0]["entries"]
    assert rule["packets"] == 3000
    where = ("--where", f"src={one['src']}", "--where", f"src_port={port}")
    killed = host.do("nf", "kill", "firewall", "connections", *where)
    assert killed == "firewall-1: 1 removed\n"
    # its next packet opens it again
    host.wait(
        lambda: host.json("nf", "show", "firewall", "rules")[0]["entries"][0]["packets"] > 3000
    )
    refused = host.onvm("nf", "show", "firewall", "flows")
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "error: firewall-1: list: 'flows': expected a list of the NF (connections, rules)"
    ]
