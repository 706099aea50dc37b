"""The suite "wire": a client and a server with a box between them, over veth.

The box is in turn the kernel and `onvm up` with the same functions. A round measures each box once,
next to its baseline, so that ratios compare neighbouring runs.
"""
