"""Many hosts as one: the agent, its data in ZooKeeper, and the view that it gives its manager.

No other part of onvm knows ZooKeeper. A manager without a cluster has no agent.
"""

from __future__ import annotations

from importlib.util import find_spec

from onvm_sdk.errors import PluginError

if find_spec("puresasl") is None:
    raise PluginError(
        "expected the package pure-sasl; run: pip install 'onvm[cluster]'", field="onvm cluster"
    )
