"""``onvm cluster``."""
