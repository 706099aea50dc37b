"""The cluster's tree in ZooKeeper: its nodes, how they are read, and how they change."""
