"""Benchmarks: ``onvm bench SUITE``.

Every scenario runs in its own process, because DPDK's environment exists once per process. It uses
the manager that users run, null ports, and the work "w2" (parse, port in a set, TTL and checksum,
drop 1 in 16). Scenarios repeat; figures are medians.
"""
