"""Settings of the whole suite: one torch thread pool, Hypothesis profiles, our own import path."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "suite", max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW
)
settings.register_profile(
    "nightly", max_examples=500, deadline=None, derandomize=False, print_blob=True, suppress_health_check=SLOW
)
settings.load_profile("suite")
