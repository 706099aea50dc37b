"""The data plane in C, bound through cffi."""
