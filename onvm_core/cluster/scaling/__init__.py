"""How many instances a service has in the cluster, and on which hosts."""
