"""A whole cluster on one machine, for development."""
