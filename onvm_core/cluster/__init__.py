"""Many hosts as one: the agent, what it keeps in ZooKeeper, and what it tells its manager.

Nothing else in onvm knows ZooKeeper. A manager without a cluster has no agent.
"""
