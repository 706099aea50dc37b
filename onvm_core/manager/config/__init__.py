"""``onvm.toml``, its checks, and the objects and the plan made from it."""
