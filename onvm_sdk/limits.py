# SPDX-License-Identifier: Apache-2.0
"""Limits between manager and NF hosts.

They are those of ``onvm/wire.h``, where each is explained, without the prefix ``ONVM_``. They stand
here again because manifests and messages are read without native code; a test compares them.
"""

ADDRESS_BYTES = 16
NAME_LENGTH = 32
SECRET_LENGTH = 64
ERROR_LENGTH = 512
MESSAGE_MAX = 16384
STATE_BYTES_MAX = 64 << 20
STAGES_MAX = 16
WORKERS_MAX = 16
REASONS_MAX = 16
COUNTERS_MAX = 16
BURST_MAX = 2048
HELD_MAX = 65536
HEADROOM = 128
