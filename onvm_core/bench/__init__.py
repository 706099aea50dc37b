"""Benchmarks: ``onvm bench SUITE``.

Every scenario is a process of its own (DPDK's environment is one per process), set up with the
same manager that users run: null ports, work "w2" (parse, port in a set, TTL and checksum, drop
1 in 16). Scenarios repeat; figures are medians.
"""
