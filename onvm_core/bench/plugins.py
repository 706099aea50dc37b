"""The chain of firewall, NAT and load balancer that ``onvm bench chain --plugins`` measures.

Every packet of the null port is for the service of the load balancer. The firewall tracks all
flows, the NAT translates their sources, and the load balancer their destinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["FLOWS", "PLUGINS", "write_configs"]

PLUGINS = ("firewall", "nat", "lb")
FLOWS = 60_000
_CONFIGS = {
    "firewall": """
default = "drop"
rules = [{ action = "accept", protocol = "udp", dst = "10.0.0.2", dst_ports = 5000 }]
""",
    "nat": """
external = "192.0.2.1"
max_per_subscriber = 65535
""",
    "lb": """
[[vips]]
address = "10.0.0.2"
protocol = "udp"
port = 5000
backends = [
    { address = "203.0.113.1" }, { address = "203.0.113.2" },
    { address = "203.0.113.3" }, { address = "203.0.113.4" },
]
""",
}


def write_configs(folder: Path, names: Sequence[str]) -> list[str]:
    """Write the configurations of NFs, and return the arguments with which an NF host gets them.

    NFs other than those of `PLUGINS` keep their defaults.
    """
    arguments = []
    for name in names:
        if name not in _CONFIGS:
            continue
        file = folder / f"{name}.toml"
        file.write_text(_CONFIGS[name])
        arguments += ["--config", f"{name}={file}"]
    return arguments
