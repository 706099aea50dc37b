"""``onvm dashboard``: a manager in a web browser."""
