"""``onvm nf``."""
