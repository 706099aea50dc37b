"""The view of a cluster: made of a snapshot of the tree, and sent to the manager."""
