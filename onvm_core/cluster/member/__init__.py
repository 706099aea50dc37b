"""One host as a member of the cluster: its session, its nodes and its state on disk."""
