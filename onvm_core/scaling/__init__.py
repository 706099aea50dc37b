"""The load of NF instances, and the number of instances that a service needs.

`load` turns two readings of an NF host's counters into utilisation and spare capacity. A policy
(`policy`) decides how many instances a service should have; the `Autoscaler` (`autoscaler`) keeps
that number. This package knows neither data plane nor processes: the manager reads counters, and
starts and drains instances (``onvm_core.manager.supervision.scaling``).
"""
