"""The tables of a manager in a cluster, made equal to its view."""
