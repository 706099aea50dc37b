"""``onvm.toml``, and what is made or planned from it."""
