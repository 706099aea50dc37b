"""Many hosts as one: the agent, what it keeps in ZooKeeper, and what it tells its manager.

Nothing else in onvm knows ZooKeeper. A manager without a cluster has no agent.
"""

from __future__ import annotations

from importlib.util import find_spec

from onvm_sdk.errors import PluginError

if find_spec("puresasl") is None:
    raise PluginError(
        "expected the package pure-sasl; run: pip install 'onvm[cluster]'", field="onvm cluster"
    )
