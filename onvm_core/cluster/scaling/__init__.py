"""The number of instances of a service in the cluster, and the choice of their hosts."""
