"""The start of the data plane, and what it needs to know of the machine."""
