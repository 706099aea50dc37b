"""The agent's connections: to its manager, and to the agents of its peers."""
