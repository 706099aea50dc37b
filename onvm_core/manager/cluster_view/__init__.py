"""What a manager is told about its cluster, as values."""
