"""Statistics exporters send a manager's counters to other systems.

`runner` feeds them, each on its own thread; `jsonl` and `prometheus` are built in.
"""
