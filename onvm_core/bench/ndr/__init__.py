"""The suite "ndr": rates at which a chain loses nothing, or little, and its latency below them.

RFC 2544 calls the greatest rate without loss the throughput; benchmarks of data planes call it the
non-drop rate (NDR), and the greatest with at most 0.5 % loss the partial drop rate (PDR).
"""
