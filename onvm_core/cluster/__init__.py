"""Many hosts as one: the agent, what it keeps in ZooKeeper, and what it tells its manager.

Nothing else in onvm knows ZooKeeper. A manager without a cluster has no agent.
"""

from __future__ import annotations

from importlib.util import find_spec

from onvm_sdk.errors import PluginError

for _module in ("kazoo", "puresasl"):
    if find_spec(_module) is None:
        raise PluginError(
            f"needs the package {_module}; run: pip install 'onvm[cluster]'", field="onvm cluster"
        )
