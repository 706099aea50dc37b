"""The start of the data plane, and the facts about the machine that it needs."""
