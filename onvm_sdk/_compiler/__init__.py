"""Compiles @kernel functions with numba; imported only when one is compiled."""
