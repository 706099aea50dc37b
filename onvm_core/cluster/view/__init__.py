"""The view of a cluster: made from a snapshot of the tree, and sent to the manager."""
