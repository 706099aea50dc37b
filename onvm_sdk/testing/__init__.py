"""Helpers for tests of network functions."""
