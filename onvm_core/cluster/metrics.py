"""An agent's metrics, in a file for the textfile collector of node_exporter.

They are about what the manager does not know: the session with the ensemble, the members as this
agent sees them, and the queue of scale requests.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from onvm_core.cluster.agent import Agent
from onvm_core.cluster.scaling.scaler import is_leader
from onvm_core.export.prometheus import text_of
from onvm_sdk.errors import ConfigError

__all__ = ["AgentMetrics", "metrics_of"]

INTERVAL_S = 10.0


def metrics_of(agent: Agent) -> dict[str, tuple[str, float]]:
    """Help and value of each metric, by name."""
    session = agent.session_thread
    snapshot = session.snapshot
    hosts = {} if snapshot is None else snapshot.hosts
    leads = snapshot is not None and is_leader(snapshot, agent.name)
    return {
        "agent_connected": (
            "1 if the agent is registered in a session with ZooKeeper, else 0.",
            int(session.may_decide),
        ),
        "agent_leads": ("1 if the agent leads the cluster, else 0.", int(leads)),
        "agent_reconnects_total": (
            "Times that the connection to ZooKeeper was lost and restored.",
            session.absences,
        ),
        "agent_events_total": ("Changes that ZooKeeper has told.", session.mirror.events),
        "agent_reads_total": ("Nodes read from ZooKeeper.", session.mirror.reads),
        "agent_writes_total": ("Changes written to ZooKeeper.", session.writes),
        "agent_watches": ("Watches in ZooKeeper.", session.mirror.watches),
        "agent_views_total": ("Views and changes sent to the manager.", agent.applies),
        "agent_unheard": ("Agents that this one does not hear.", len(agent.unheard)),
        "cluster_hosts": ("Hosts whose agent has a session.", len(hosts)),
        "cluster_hosts_away": (
            "Hosts whose agent has no session.",
            0 if snapshot is None else len(snapshot.away),
        ),
        "cluster_requests_waiting": (
            "Scale requests in the queue.",
            0 if snapshot is None else len(snapshot.requests),
        ),
        "agent_requests_served_total": ("Scale requests served here.", agent.scaler.served),
        "agent_moves_total": (
            "NF hosts that have moved from here with their state.",
            0 if agent.state_sender is None else agent.state_sender.moved,
        ),
    }


class AgentMetrics:
    """Writes the file; a context manager that removes it in the end.

    Args:
        path: its name ends with ``.prom``.

    Raises:
        ConfigError: it is not a name for such a file.
    """

    def __init__(self, path: Path, agent: Agent) -> None:
        if path.suffix != ".prom" or not path.parent.is_dir():
            raise ConfigError(
                "expected a file that ends with .prom, in an existing folder",
                field="--metrics",
                value=str(path),
            )
        self._path = path
        self._new = path.with_name(f"{path.name}.{os.getpid()}.new")
        self._agent = agent
        self._at_s = 0.0

    def __enter__(self) -> AgentMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._new.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def turn(self) -> None:
        """Replace the file, if it is time."""
        now = time.monotonic()
        if now < self._at_s:
            return
        self._at_s = now + INTERVAL_S
        text = text_of(metrics_of(self._agent), (("host", self._agent.name),))
        self._new.write_text(text, encoding="utf-8")
        self._new.chmod(0o644)
        self._new.replace(self._path)
