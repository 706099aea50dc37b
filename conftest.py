"""What all tests share: how property tests draw their examples.

``make test`` uses the profile *fixed*: the same examples in each run, so that a green commit stays
green. ``make fuzz`` uses *explore*: new examples in each round; what fails is kept in
``.hypothesis/`` and tried first in the next ``make fuzz``.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine draws slowly; that says nothing about the code.
_SLOW_IS_FINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("fixed", derandomize=True, **_SLOW_IS_FINE)
settings.register_profile("explore", print_blob=True, **_SLOW_IS_FINE)
settings.load_profile(os.environ.get("ONVM_HYPOTHESIS_PROFILE", "fixed"))
