"""The suite "wire": a client and a server with a box between them, over veth.

The box is in turn the kernel and `onvm up` with the same functions. Each measurement of one is
followed by that of the other, so that ratios compare neighbouring runs.
"""
