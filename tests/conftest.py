"""Settings of the whole suite: one torch thread pool, Hypothesis profiles, our own import path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import maxaffine

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "suite", max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW
)
settings.register_profile(
    "nightly", max_examples=500, deadline=None, derandomize=False, print_blob=True, suppress_health_check=SLOW
)
settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled kernels are kept as long as their own file is unchanged: also when one that they call was edited."""
    if getattr(config, "workerinput", None) is None:
        package = Path(maxaffine.__file__).parent
        edited = max(file.stat().st_mtime for file in package.rglob("*.py") if "numba" in file.read_text())
        for kept in [*package.rglob("*.nbi"), *package.rglob("*.nbc")]:
            if kept.stat().st_mtime < edited:
                kept.unlink(missing_ok=True)
