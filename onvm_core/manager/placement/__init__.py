"""The CPUs and memory of NF hosts."""
