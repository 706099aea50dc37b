"""The cluster as its agent describes it to a manager, as values."""
