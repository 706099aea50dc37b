"""How loaded NF instances are, and how many there should be.

`load` turns two readings of an NF host's counters into utilisation and spare capacity. A policy
(`policy`) says from the loads of a service how many instances it should have; the `Autoscaler`
(`autoscaler`) keeps that number. Nothing here knows a data plane or a process: the manager reads
counters and starts and drains instances (``onvm_core.manager.supervision.scaling``).
"""
