"""The manager: one process that owns the data plane of a machine and serves requests."""
