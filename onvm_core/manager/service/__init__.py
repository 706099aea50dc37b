"""A long-lived manager, and the requests it serves."""
