"""Limits of the data plane.

They equal those of ``native/dataplane/table_sizes.h`` and ``latency.h``, where each is explained,
without the prefix ``ONVM_``. They are repeated here because configuration, messages and the fake
data plane work without native code; a test compares them.
"""

HOSTS_MAX = 256
SERVICES_MAX = 256
CHAINS_MAX = 256
CHAIN_LENGTH_MAX = 16
PORT_REMOTE = 0x8000
RING_LENGTH_MIN = 128
LATENCY_BUCKETS = 128
