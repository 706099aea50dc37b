"""Statistics exporters: they hand a manager's counters to other systems.

`runner` feeds them, each on a thread of its own; `jsonl` and `prometheus` are those of onvm.
"""
