"""The data plane as an object: its protocol, its values, and one in memory for tests."""
