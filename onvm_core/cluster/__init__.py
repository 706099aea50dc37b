"""Many hosts as one: the agent, its data in ZooKeeper, and the view that it gives its manager.

No other part of onvm knows ZooKeeper. A manager without a cluster has no agent.
"""
